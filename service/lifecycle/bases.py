"""How the basis vectors of a version are used: the mean gate of each on edits, on their other wordings, and on unrelated text.

The BaFT paper's figure 2. Computed when asked for, from the version's own overlay and live set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from service.domain.edit import Edit
from service.editors.baft.bases import load_report
from service.editors.neutral import Neutral
from service.lifecycle.overlays import overlay_of
from service.lifecycle.parts import Parts
from service.lm.base import Base
from service.lm.intervention import Balance
from service.lm.overlay import Overlay, View
from service.lm.prompts import Row, encode_row
from service.lm.score import gate_means
from service.store import edits, versions

MOST_EDITS = 64  # a mean over more changes little and would hold up the answers
MOST_UNRELATED = 64


@dataclass(frozen=True)
class UseOfBlock:
    """The intervention at one block, each list by basis; None where there is nothing to take a mean of."""

    block: int
    edits_counted: int  # in the running means of load balancing
    balance: tuple[float, ...] | None
    squared_variation: float | None  # of the balance over the bases; 0: all are used alike
    active_share: float | None  # of bases whose balance is at least half the mean
    edits: tuple[float, ...] | None
    rephrases: tuple[float, ...] | None
    unrelated: tuple[float, ...] | None


def use_of_bases(parts: Parts, neutral: Neutral, view_of: Callable[[Overlay], View], number: int) -> tuple[UseOfBlock, ...]:
    """One entry a block that the version intervenes on, none without interventions. Raises NotFound, Gone or Corrupt."""
    overlay = overlay_of(parts.store, parts.overlays, number)
    adapter = overlay.adapter
    if adapter is None:
        return ()
    with parts.store.read() as connection:
        window = versions.live_set(connection, number).window
        asked = edits.many(connection, [item.edit_id for item in window[-MOST_EDITS:] if not item.tombstone])
    view = view_of(overlay)
    adapter = adapter.to(neutral.base.device)

    def means(rows: Sequence[Row]) -> dict[int, Tensor]:
        return gate_means(view, rows, adapter) if rows else {}

    of_edits = means(_rows(neutral.base, asked, literal=True))
    of_rephrases = means(_rows(neutral.base, asked, literal=False))
    of_unrelated = means(neutral.canary[:MOST_UNRELATED])
    return tuple(
        _use_of_block(block, adapter.balance.get(block), of_edits.get(block), of_rephrases.get(block), of_unrelated.get(block))
        for block in sorted(adapter.interventions)
    )


def _use_of_block(
    block: int, balance: Balance | None, edits: Tensor | None, rephrases: Tensor | None, unrelated: Tensor | None
) -> UseOfBlock:
    load = load_report(balance)
    return UseOfBlock(
        block=block,
        edits_counted=load["edits"],
        balance=None if load["load"] is None else tuple(load["load"]),
        squared_variation=load["squared_variation"],
        active_share=load["active_share"],
        edits=_listed(edits),
        rephrases=_listed(rephrases),
        unrelated=_listed(unrelated),
    )


def _rows(base: Base, asked: Sequence[Edit], *, literal: bool) -> list[Row]:
    """The edits' prompts with their targets, or their rephrases with the same."""
    return [
        encode_row(base, prompt, edit.target, surface=surface)
        for edit in asked
        for prompt in ([edit.prompt] if literal else [probe.prompt for probe in edit.rephrases])
        for surface in edit.surfaces or base.surfaces
    ]


def _listed(values: Tensor | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(round(float(value), 6) for value in values)
