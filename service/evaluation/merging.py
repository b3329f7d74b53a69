"""Merging the results of several evaluations, as if all of their questions had been asked together."""

from collections.abc import Sequence
from typing import Any


def merge_results(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of several. Scores are weighted by their n, counts are added, and labels are those of the first result."""
    first = results[0]
    total: dict[str, Any] = {}
    for name in dict.fromkeys(name for result in results for name in result):
        values = [result[name] for result in results if result.get(name) is not None]
        if not values:
            total[name] = None
        elif name in ("capability", "version"):
            total[name] = values[-1]  # of the last version: all results measure capability on one set of tasks
        elif name == "evaluations":
            total[name] = [evaluation for value in values for evaluation in value]
        elif isinstance(values[0], dict):
            total[name] = merge_results(values)
        elif isinstance(values[0], float) or (name == "score" and "n" in first):
            total[name] = _weighted(name, results)
        elif isinstance(values[0], int) and not isinstance(values[0], bool):
            total[name] = sum(values)
        else:
            total[name] = values[0]
    return total


def _weighted(name: str, results: Sequence[dict[str, Any]]) -> float | None:
    pairs = [(result[name], result.get("n", 1)) for result in results if result.get(name) is not None]
    total = sum(n for _, n in pairs)
    return sum(value * n for value, n in pairs) / total if total else None
