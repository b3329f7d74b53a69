"""The section of `docs/benchmarks.md` on two revisions: the compared parts, the differences and the times."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import Result, table

SAMPLES = {"edit": "an edit, from POST to applied", "answer": "an answer", "retrain": "a major retrain, to the end of its job"}


def section(results: Mapping[str, Result]) -> Iterator[str]:
    """The lines of the section, for the parts of the result."""
    figures = results["compare_revisions"]["figures"]
    yield f"Revision {figures['before']} (before) and {figures['after']} (after), each started from its own source tree and asked"
    yield "over HTTP. Both are given the same edits, retrains, retractions and rollbacks, in the same order."
    yield ""
    formatters = {"bytes": _bytes, "documents": _documents, "store": _store}
    rows = [(*formatter(figures[name]), _count(figures[name])) for name, formatter in formatters.items() if name in figures]
    if rows:
        yield from table(("the same in both?", "compared", "differences"), rows)
    if "times" in figures:
        yield ""
        yield from _times(figures["times"])


def _bytes(part: Result) -> tuple[str, str]:
    expected = f"; {part['expected']} differences were expected" if part.get("expected") else ""
    return "checkpoints and answers", f"SHA-256 of {len(part['versions'])} versions, {part['answers']} greedy answers{expected}"


def _documents(part: Result) -> tuple[str, str]:
    compared = f"{part['documents']} documents, {part['lines']} lines"
    texts = ", ".join(f"`{text}`" for text in part["expected_texts"])
    expected = f"; {part['expected']} changed lines were expected (with {texts})" if part["expected"] else ""
    prose = f"; {len(part['prose'])} lines of prose are worded anew" if part.get("prose") else ""
    return "API description, settings, help texts, schema, refusals", compared + expected + prose


def _store(part: Result) -> tuple[str, str]:
    compared = f"{part['versions']} versions, {part['edits']} edits, {part['answers']} greedy answers"
    return "a store of the one, opened by the other", compared


def _count(part: Result) -> str:
    count = len(part["differences"])
    return f"**{count}**" if count else "0"


def _times(part: Mapping[str, Any]) -> Iterator[str]:
    """The medians of both revisions and of their ratios."""
    yield f"Times of {part['pairs']} pairs, in turns, on two servers that are up at once. Every sample begins at the same window"
    yield f"of {part['window']} edits, with {part['neutral_sentences']} neutral sentences. Meanwhile other programs used"
    yield f"{part['cores_of_others']:.1f} cores (median)."
    yield ""
    rows = []
    for name, label in SAMPLES.items():
        sample = part[name]
        ratio = sample["ratio"]
        interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
        rows.append((label, f"{sample['before_ms']:.0f} ms", f"{sample['after_ms']:.0f} ms", f"{ratio['median']:.3f}", interval))
    yield from table(("", "before", "after", "median of the ratios", "95% interval (bootstrap)"), rows)
