"""The monitor's questions for versions of one base model: a few at a time, each judged against the base or the edit."""

from collections.abc import Callable, Sequence

from service.domain.edit import Edit
from service.domain.even_choice import choose_evenly
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.evaluation.capability.measure import Task
from service.lifecycle.editors import MonitorProbes, Share
from service.lm.base import Base
from service.lm.overlay import Overlay, View
from service.lm.prompts import encode_row
from service.lm.scoring import greedy_matches
from service.locality.meter import LocalityMeter

SENTENCES = 100
TASKS = 108  # at most, chosen evenly from the server's tasks

CapabilityRatio = Callable[[Overlay, Sequence[Task], Callable[[], None]], float | None]


class MonitorQuestions:
    """Asks overlays of one base. Only the monitor's thread uses it."""

    def __init__(
        self,
        base: Base,
        view_of: Callable[[Overlay], View],
        neutral: NeutralSentences,
        tasks: Sequence[Task],
        capability_ratio: CapabilityRatio,
        meter: LocalityMeter | None = None,
        *,
        has_all: bool = True,
    ) -> None:
        self._base, self._view_of, self._neutral, self._capability_ratio = base, view_of, neutral, capability_ratio
        self._meter = meter
        self._has_all = has_all
        self._tasks = choose_evenly(tasks, TASKS)

    def probes(self) -> MonitorProbes:
        """The questions, in the form that the monitor needs."""
        return MonitorProbes(answered=self.answered, inside=self.inside, capability=self.capability)

    def answered(self, overlay: Overlay, edits: Sequence[Edit]) -> list[bool]:
        """Whether each edit's target is the whole greedy answer on each of its surfaces."""
        rows = [
            (index, encode_row(self._base, edit.prompt, edit.target, surface=surface))
            for index, edit in enumerate(edits)
            for surface in edit.surfaces or self._base.surfaces
        ]
        right = greedy_matches(self._view_of(overlay), [row for _, row in rows], overlay.adapter) if rows else []
        wrong = {index for (index, _), is_right in zip(rows, right, strict=True) if not is_right}
        return [index not in wrong for index in range(len(edits))]

    def inside(self, overlay: Overlay, yield_to_answers: Callable[[], None]) -> Share | None:
        """The share of tokens of sentences that fits may use whose likeliest one is kept. None until the sentences are there, so
        that the questions never change.
        """
        sentences = self._neutral.sentences[:SENTENCES]
        if self._meter is None or not sentences or (not self._has_all and len(sentences) < SENTENCES):
            return None
        kept = self._meter.compare_prose(overlay, sentences, Hooks(yield_to_answers=yield_to_answers))
        return None if kept is None else Share(kept.kept, kept.n)

    def capability(self, overlay: Overlay, yield_to_answers: Callable[[], None]) -> Share | None:
        """The capability on a fixed part of the server's tasks, as a share of the base model's."""
        score = self._capability_ratio(overlay, self._tasks, yield_to_answers) if self._tasks else None
        return None if score is None else Share(score, len(self._tasks))
