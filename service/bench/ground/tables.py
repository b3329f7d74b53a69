"""A ground as lines of text: what the model knows, and how many edits and probes there are."""

from collections import Counter
from collections.abc import Iterator

from service.bench.ground.records import LOCALITY_GROUPS, WORDING_STRATA, Ground


def format_known(ground: Ground) -> Iterator[str]:
    """One line for each surface and relation of which the model knows anything."""
    yield f"{'surface':8} {'relation':20} {'asked':>6} {'known':>6} {'sure':>6} {'confidence':>11} {'dev':>5} {'test':>5}"
    for row in ground.known:
        if row["known"]:
            yield (
                f"{row['surface']:8} {row['relation']:20} {row['asked']:>6} {row['known']:>6} {row['confident']:>6} "
                f"{row['confidence']:>11.2f} {row['development']:>5} {row['test']:>5}"
            )


def format_edits(ground: Ground) -> Iterator[str]:
    """One line for each surface and half: its edits, and their probes by stratum and group."""
    names = (*WORDING_STRATA, *LOCALITY_GROUPS)
    yield f"{'surface':8} {'half':12} {'edits':>6} " + " ".join(f"{name:>12}" for name in names)
    for surface, half in dict.fromkeys((edit.surface, edit.half) for edit in ground.edits):
        edits = [edit for edit in ground.edits if (edit.surface, edit.half) == (surface, half)]
        counts = Counter(probe.group for edit in edits for probe in (*edit.wordings, *edit.locality))
        yield f"{surface:8} {half:12} {len(edits):>6} " + " ".join(f"{counts[name]:>12}" for name in names)
