"""How the basis vectors of a version are used: the mean gate of each on edits, on their other wordings, and on unrelated text.

The BaFT paper's figure 2. Computed when asked for, from the version's own overlay and live set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit
from service.editors.baft.basis_report import basis_report
from service.editors.neutral import NeutralSentences
from service.lifecycle.checkpoints import load_overlay
from service.lifecycle.context import LifecycleContext
from service.lm.base import Base
from service.lm.overlay import Overlay, View
from service.lm.prompts import Row, encode_row
from service.store import edits, versions

MAX_EDITS = 64  # a mean over more changes little and would hold up the answers
MAX_UNRELATED = 64


@dataclass(frozen=True)
class BlockUsage:
    """The intervention at one block, each list by basis; None where there is nothing to take a mean of."""

    block: int
    edits_counted: int  # in the running means of load balancing
    balance: tuple[float, ...] | None
    squared_variation: float | None  # of the balance over the bases; 0: all are used alike
    active_share: float | None  # of bases whose balance is at least half the mean
    edits: tuple[float, ...] | None
    rephrases: tuple[float, ...] | None
    unrelated: tuple[float, ...] | None


def measure_basis_use(
    context: LifecycleContext, neutral: NeutralSentences, view_of: Callable[[Overlay], View], number: int
) -> tuple[BlockUsage, ...]:
    """One entry a block that the version intervenes on, none without interventions. Raises NotFound, Gone or Corrupt."""
    overlay = load_overlay(context.store, context.checkpoints, number)
    adapter = overlay.adapter
    if adapter is None:
        return ()
    with context.store.read() as connection:
        window = versions.read_live_set(connection, number).window
        asked = edits.read_many(connection, [item.edit_id for item in window[-MAX_EDITS:] if not item.is_tombstone])
    prompts = {
        "edits": _rows(neutral.base, asked, literal=True),
        "rephrases": _rows(neutral.base, asked, literal=False),
        "unrelated": neutral.canary[:MAX_UNRELATED],
    }
    report = basis_report(view_of(overlay), adapter.to(neutral.base.device), prompts)
    return tuple(_use_of_block(seen) for seen in report["blocks"])


def _use_of_block(seen: Mapping[str, Any]) -> BlockUsage:
    gates = {kind: None if mean is None else tuple(mean) for kind, mean in seen["mean_gate"].items()}
    return BlockUsage(
        block=seen["block"],
        edits_counted=seen["edits"],
        balance=None if seen["load"] is None else tuple(seen["load"]),
        squared_variation=seen["squared_variation"],
        active_share=seen["active_share"],
        **gates,
    )


def _rows(base: Base, asked: Sequence[Edit], *, literal: bool) -> list[Row]:
    """The edits' prompts with their targets, or their rephrases with the same."""
    return [
        encode_row(base, prompt, edit.target, surface=surface)
        for edit in asked
        for prompt in ([edit.prompt] if literal else [probe.prompt for probe in edit.rephrases])
        for surface in edit.surfaces or base.surfaces
    ]
