"""Figures as Markdown: tables, with a mark at each figure that falls short of its aim."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def locality_outside_neutral(neutral: Result) -> Result:
    """Locality outside the pool, on the prompts that do not occur among the neutral sentences."""
    return {"score": neutral["locality_outside_and_not_among_them"], "n": neutral["n"]}


def score_row(name: str, figure: Result, aim: float | None = None) -> tuple[str, str, str, str]:
    """A score with its n and its aim."""
    text = format_share(figure["score"], aim)
    return (name, text, str(figure["n"]), "" if aim is None else f"≥ {aim:.2f}")


def format_share(value: float | None, aim: float | None = None) -> str:
    """A share, marked if it is under its aim."""
    text = format_number(value)
    return f"**{text}** (short)" if aim is not None and value is not None and round(value, 3) < aim else text


def format_score(figure: Result) -> str:
    """A score alone."""
    return format_number(figure["score"])


def format_number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where nothing was measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_percentage(value: float | None) -> str:
    """A percentage."""
    return "–" if value is None else f"{100 * value:.0f}%"


def format_at_most(value: float, aim: float, unit: str) -> tuple[str, str]:
    """A figure with an upper bound as its aim, and the aim."""
    text = f"{value:.2f} {unit}" if unit == "s" else f"{value:.0f} {unit}"
    return (text if value <= aim else f"**{text}** (short)", f"≤ {aim:g} {unit}")


def format_at_least(value: float, aim: float) -> tuple[str, str]:
    """A figure with a lower bound as its aim, and the aim."""
    return (f"{value:.1f}" if value >= aim else f"**{value:.1f}** (short)", f"≥ {aim:g}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in rows:
        yield "| " + " | ".join(line) + " |"
