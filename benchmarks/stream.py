"""A stream of edits, all of them asked again at each mark: the service with its own retrains, and other methods beside it."""

import time
from collections.abc import Callable, Iterator

from benchmarks.atlas import Ground, ground, teach
from benchmarks.contenders import BASELINES, Contender
from benchmarks.outcome import begin, options, skipping, write
from benchmarks.single import locality_and_neutral
from benchmarks.through_service import ThroughService
from service.evaluation.capability import capability
from service.evaluation.record import Record
from service.evaluation.report import report
from service.lm.overlay import Overlay

MARKS = (10, 25, 50, 100)
SERVICE: dict[str, int] = {"service": 0, "service_one_rephrase": 1}  # name: rephrases that it may learn from


def main() -> None:
    """The command."""
    parser = skipping(options(__doc__, edits=100))
    parser.add_argument("--only", nargs="*", choices=[*SERVICE, *BASELINES], default=[], help="only these methods")
    chosen = begin(parser)
    place = ground(chosen.model, chosen.records, edits=chosen.edits, skip=chosen.skip)
    marks = [mark for mark in MARKS if mark < chosen.edits] + [chosen.edits]
    for name, taught, make in _methods():
        if not chosen.only or name in chosen.only:
            print(f"-- {name}", flush=True)
            records = [teach(record, taught) for record in place.records]
            for figures in follow(
                place, records, make, marks
            ):  # written at every mark: a run that is cut short keeps what it has
                write(chosen.results, f"stream_{name}", {"method": name, "trained_rephrases": taught, "marks": figures})


def follow(
    place: Ground, records: list[Record], make: Callable[[Ground], Contender], marks: list[int]
) -> Iterator[list[dict[str, object]]]:
    """The figures of one method so far, at each mark."""
    contender = make(place)
    found: list[dict[str, object]] = []
    try:
        for seq, record in enumerate(records, 1):
            began = time.perf_counter()
            contender.take(record, seq)
            seconds = time.perf_counter() - began
            if seq in marks:
                began = time.perf_counter()
                overlay = contender.overlay()
                settling = time.perf_counter() - began
                found.append(
                    {
                        "edits": seq,
                        "last_edit_seconds": seconds,
                        "overlay_seconds": settling,
                        **score(place, overlay, records[:seq]),
                        **({"service": contender.facts()} if isinstance(contender, ThroughService) else {}),
                    }
                )
                print(_line(found[-1]), flush=True)
                yield found
    finally:
        contender.close()


def score(place: Ground, overlay: Overlay, live: list[Record]) -> dict[str, object]:
    """The whole live set asked of an overlay, and the capability beside the base model's."""
    outcomes = place.measure(overlay, live)
    kept = capability(place.view_of(overlay), overlay.adapter, place.reference, place.tasks)
    return {
        **report(outcomes),
        "neutral": locality_and_neutral(place, outcomes),
        "capability": {"version": kept.version, "base": kept.base, "ratio": kept.ratio},
        "carried": {"tensors": bool(overlay.tensors), "adapter": overlay.adapter is not None},
    }


def _methods() -> list[tuple[str, int, Callable[[Ground], Contender]]]:
    served = [(name, taught, ThroughService) for name, taught in SERVICE.items()]
    return [*served, *((name, 0, make) for name, make in BASELINES.items())]


def _line(figures: dict[str, object]) -> str:
    greedy = figures["greedy"]
    assert isinstance(greedy, dict)
    parts = [f"{kind} {greedy[kind]['score']}" for kind in ("reliability", "generality", "locality")]
    return f"   {figures['edits']} edits: {', '.join(parts)}, outside {greedy['locality']['outside']['score']}"


if __name__ == "__main__":
    main()
