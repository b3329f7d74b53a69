"""The section of `docs/benchmarks.md` on load balancing."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.markdown import Result, format_number, table

_VARIANTS = {
    "balanced": "default",
    "unbalanced": "default without load balancing",
    "paper_balanced": "preset `paper`",
    "paper_unbalanced": "preset `paper` without load balancing",
}
_BALANCE_KEYS = ("running_squared_variation", "final_squared_variation")


def balance(results: Mapping[str, Result]) -> Iterator[str]:
    """The two quantities at marks and over orders of the edits; then the mean gates and the scores after the last edit."""
    figures = results["load_balance"]["figures"]
    seeds = len({row["seed"] for row in figures["rows"]})
    yield f"{figures['edits']} edits one after another on one adapter, in {seeds} orders. CV² is the squared coefficient of"
    yield "variation over the bases, averaged over blocks, of two quantities. The *running mean* counts each edit with the"
    yield "gates of the moment when it was fitted; load balancing minimises it. The *final gates* are those of the last"
    yield "adapter, with which the prompts of all edits are read again. Each figure is a mean over the orders, with the"
    yield "smallest and the largest."
    yield ""
    marks = sorted({row["edits"] for row in figures["rows"]})
    names = ("CV², running mean", "CV², final gates")
    lines = [
        (label, name, *(_range([row[key] for row in _rows_of(figures, variant, mark)]) for mark in marks))
        for variant, label in _VARIANTS.items()
        for name, key in zip(names, _BALANCE_KEYS, strict=True)
    ]
    yield from table(("", "", *(f"{mark} edit{'s' if mark > 1 else ''}" for mark in marks)), lines)
    yield ""
    yield f"After {marks[-1]} edits, as means over the orders:"
    yield ""
    head = ("", "gate: edits", "rephrases", "unrelated", "reliability", "generality", "locality")
    yield from table(head, [_balance_line(label, _rows_of(figures, variant, marks[-1])) for variant, label in _VARIANTS.items()])


def _rows_of(figures: Result, variant: str, edits: int) -> list[Result]:
    return [row for row in figures["rows"] if row["variant"] == variant and row["edits"] == edits]


def _balance_line(label: str, rows: Sequence[Result]) -> tuple[str, ...]:
    gates = (_mean_of([row["mean_gate"][kind] for row in rows]) for kind in ("edits", "rephrases", "unrelated"))
    scores = (_mean_of([row[kind] for row in rows]) for kind in ("reliability", "generality", "locality"))
    return (label, *(format_number(gate, 3) for gate in gates), *(format_number(score) for score in scores))


def _range(values: Sequence[float]) -> str:
    """The mean, with the smallest and the largest where there are several."""
    spread = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
    return f"{_mean_of(values):.4f}{spread}"


def _mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)
