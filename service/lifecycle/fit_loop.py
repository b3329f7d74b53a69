"""The loop of fitting: fit, leave out what is in the way, fit again, until a fit counts. What is left out is the verb's policy.

Each round depends on the job and its parent alone, so that a repetition after a crash takes the same way to the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from service.editors.protocol import FitItem, FitResult, Hooks
from service.lifecycle.context import EditingContext
from service.lifecycle.job_hooks import JobHooks
from service.lm.overlay import Overlay
from service.store.jobs import Job


@dataclass(frozen=True)
class FitRound:
    """What one fit trains on: `new` items on top of `parent`, and `replay` items, whose answers it has to keep. The greater its
    `firmness`, the more a change of anything else weighs.
    """

    parent: Overlay
    new: Sequence[FitItem]
    replay: Sequence[FitItem]
    seed: int
    firmness: int = 0


class FitPolicy(Protocol):
    """How one verb goes from a fit to the next."""

    def next_round(self) -> FitRound | None:
        """What the next fit trains on; None if nothing is left to fit."""

    def take(self, fitted: FitResult, *, is_last: bool) -> FitResult | None:
        """The fit that counts: this one, or an earlier one that it is no better than. None if none counts yet; then the policy
        leaves something out before the next round, or asks for a firmer fit.
        """


def fit_until_final(context: EditingContext, job: Job, policy: FitPolicy, job_hooks: JobHooks) -> FitResult | None:
    """Fit until the policy takes a fit, with the neutral sentences that the job names; None if nothing is left to fit or no fit
    counts.

    There are at most `rounds` fits that lose anything, and `is_last` is true in the last of these. A fit that loses nothing and
    does not count leaves out edits or is repeated more firmly, a few times, so the loop ends.
    """
    editor = context.editors_by_part.of(job.neutral_sentences).incremental
    rounds_left = context.settings.rounds
    while rounds_left:
        fit_round = policy.next_round()
        if fit_round is None:
            return None
        fitted = editor.fit(
            fit_round.parent,
            fit_round.new,
            fit_round.replay,
            seed=fit_round.seed,
            hooks=_hooks_of(job_hooks, fit_round.firmness),
            firmness=fit_round.firmness,
        )
        rounds_left -= int(bool(fitted.lost))
        counted = policy.take(fitted, is_last=not rounds_left)
        if counted is not None:
            return counted
    return None


def _hooks_of(job_hooks: JobHooks, firmness: int) -> Hooks:
    """The hooks of one fit. The stages of a firmer fit say so, in the job and in its log."""
    hooks = job_hooks.hooks()
    if not firmness:
        return hooks
    return replace(hooks, progress=lambda share, stage: hooks.progress(share, f"{stage}, more firmly"))
