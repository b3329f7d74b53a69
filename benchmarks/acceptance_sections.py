"""Sections of `docs/benchmarks.md` on acceptance: the noise floors of its measures, and its agreement with harm."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harm_sheet import count_by_hand, read_labels
from benchmarks.markdown import Result, format_number, table


def trials(results: Mapping[str, Result]) -> Iterator[str]:
    """Acceptance beside harm, before and after."""
    yield "What each base keeps of itself when the same rows are asked one at a time: the noise floor beyond which a loss counts."
    yield ""
    yield from table(
        ("model", "dtype", "far answers, of them sampled", "far kept", "likeliest tokens of prose kept", "KL, nats a token"),
        [_floors(result["figures"]) for result in results.values()],
    )
    yield ""
    yield "Candidates from harmless to wrecking, each judged by acceptance and by the rule of an earlier release, whole"
    yield "continuations of neutral sentences. *Harmful*: of the ground's probes, which acceptance does not ask, it keeps less"
    yield "than 0.75 near, 0.5 about the same subject or 0.9 far away, or prose moves by more than 0.1 nats a token. A refused"
    yield "harmful candidate and an accepted harmless one agree."
    yield ""
    head = (
        "model, half",
        "candidates",
        "",
        "harmful",
        "agreement",
        "harm accepted",
        "harmless refused",
        "before: agreement",
        "accepted",
        "refused",
    )
    yield from table(head, [row for result in results.values() for row in _rows(result["figures"])])
    yield from _by_hand([result["figures"] for result in results.values()])


def _floors(figures: Mapping[str, Any]) -> tuple[str, ...]:
    floors = figures["floors"]
    shares = [format_number(floors[name]) if name in floors else "–" for name in ("far", "prose")]
    divergence = f"{floors['divergence']:.1e}" if "divergence" in floors else "–"
    return (figures["model"], figures["dtype"], f"{figures['far answers']}, {figures['of them sampled']}", *shares, divergence)


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for kind, counts in {"all": figures["all"], **figures["kinds"]}.items():
        now, before = counts["now"], counts["before"]
        yield (
            _model_and_half(figures),
            kind,
            str(counts["candidates"]),
            str(counts["harmful"]),
            *(
                format_number(rule["agreement"]) if name == "agreement" else str(rule[name])
                for rule in (now, before)
                for name in rule
            ),
        )


def _by_hand(trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How three judges agree with a reader, on the trials of which every candidate was read."""
    counted = [(each, count_by_hand(each["rows"], read_labels(each["model"]))) for each in trials]
    read = [(each, counts) for each, counts in counted if counts is not None]
    if not read:
        return
    yield ""
    yield "The same candidates labelled by hand: a reader saw the edits, every answer that changed, and by how much prose moved"
    yield "(`python -m benchmarks.harm_sheet`), not what acceptance or the rule above say."
    yield ""
    head = ("model, half", "candidates", "harmful by hand", "judge", "agreement", "harm accepted", "harmless refused")
    judges = {"now": "acceptance", "before": "the earlier rule", "rule": "the rule above"}
    yield from table(
        head,
        [
            (
                _model_and_half(each),
                str(counts["candidates"]),
                str(counts["harmful"]),
                label,
                format_number(counts[judge]["agreement"]),
                str(counts[judge]["harm accepted"]),
                str(counts[judge]["harmless refused"]),
            )
            for each, counts in read
            for judge, label in judges.items()
        ],
    )


def _model_and_half(figures: Mapping[str, Any]) -> str:
    return f"{figures['model']}, {figures.get('half', 'development')}"
