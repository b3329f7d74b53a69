"""The use of a version's bases: the mean gate of each basis on edits, on their rephrases, and on unrelated text.

This is figure 2 of the BaFT paper, computed on request from the overlay and the live set of the version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit
from service.editors.baft.basis_report import basis_report
from service.editors.neutral import NeutralSentences, cut_rows
from service.lifecycle.checkpoints import load_overlay
from service.lifecycle.context import LifecycleContext
from service.lm.base import Base
from service.lm.overlay import Overlay, View
from service.lm.prompts import Row, encode_row
from service.store import edits, versions

MAX_EDITS = 64  # a mean over more changes little and would delay answers
MAX_UNRELATED = 64


@dataclass(frozen=True)
class BlockUsage:
    """The intervention at one block; each tuple has one entry a basis. None where there is nothing to take a mean of."""

    block: int
    edits_counted: int  # by the running mean
    running_mean: tuple[float, ...] | None  # over all edits of the adapter, each with the gates of when it was fitted
    running_squared_variation: float | None  # of the running mean over the bases; 0: all bases are used alike
    final_squared_variation: float | None  # of `edits` over the bases
    active_share: float | None  # share of active bases, by the running mean
    edits: tuple[float, ...] | None  # the final gates: those of this version on edits of its window, read again
    rephrases: tuple[float, ...] | None
    unrelated: tuple[float, ...] | None


def measure_basis_use(
    context: LifecycleContext, get_neutral: Callable[[], NeutralSentences], view_of: Callable[[Overlay], View], number: int
) -> tuple[BlockUsage, ...]:
    """One entry for each intervened block of a version; none for a version without interventions.

    Raises NotFound, Gone or Corrupt, and what `get_neutral` raises while there are no neutral sentences yet.
    """
    overlay = load_overlay(context.store, context.checkpoints, number)
    adapter = overlay.adapter
    if adapter is None:
        return ()
    neutral = get_neutral()
    with context.store.read() as connection:
        window = versions.read_live_set(connection, number).window
        window_edits = edits.read_many(connection, [item.edit_id for item in window[-MAX_EDITS:] if not item.is_tombstone])
    prompts = {
        "edits": _encode(neutral.base, window_edits, literal=True),
        "rephrases": _encode(neutral.base, window_edits, literal=False),
        "unrelated": cut_rows(neutral.base, neutral.held_out[:MAX_UNRELATED]),
    }
    report = basis_report(view_of(overlay), adapter.to(neutral.base.device), prompts)
    return tuple(_usage_of(block) for block in report["blocks"])


def _usage_of(block: Mapping[str, Any]) -> BlockUsage:
    gates = {kind: None if mean is None else tuple(mean) for kind, mean in block["mean_gate"].items()}
    return BlockUsage(
        block=block["block"],
        edits_counted=block["edits"],
        running_mean=None if block["running_mean"] is None else tuple(block["running_mean"]),
        running_squared_variation=block["running_squared_variation"],
        final_squared_variation=block["final_squared_variation"],
        active_share=block["active_share"],
        **gates,
    )


def _encode(base: Base, window_edits: Sequence[Edit], *, literal: bool) -> list[Row]:
    """Rows of the edits' prompts (`literal`) or of their rephrases, each with the edit's target."""
    return [
        encode_row(base, prompt, edit.target, surface=surface)
        for edit in window_edits
        for prompt in ([edit.prompt] if literal else [probe.prompt for probe in edit.rephrases])
        for surface in edit.surfaces or base.surfaces
    ]
