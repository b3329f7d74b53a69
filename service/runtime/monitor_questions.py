"""The monitor's questions for versions of one base model: a few at a time, each judged against the base or the edit."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from service.domain.edit import Edit
from service.editors.neutral import CANDIDATES, NeutralSentences, confident_rows
from service.evaluation.capability.measure import Task
from service.lifecycle.editors import MonitorProbes, Share
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import Row, encode_row
from service.lm.scoring import greedy_matches

ROWS_AT_ONCE = 16  # take a small model 0.25 s on one busy core: the longest time that an answer waits for one batch
SENTENCES = 100  # the canary's default size, so that the two figures have the same precision
TASKS = 108  # at most, chosen evenly from the server's tasks

Element = TypeVar("Element")
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
        *,
        has_all: bool = True,
    ) -> None:
        self._base, self._view_of, self._neutral, self._capability_ratio = base, view_of, neutral, capability_ratio
        self._has_all = has_all
        self._tasks = choose_evenly(tasks, TASKS)
        self._inside_rows: list[Row] | None = None

    def probes(self) -> MonitorProbes:
        """The questions, in the form that the monitor needs."""
        return MonitorProbes(answered=self.answered, inside=self.inside, outside=self.outside, capability=self.capability)

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
        """The share of neutral sentences that a version continues as the base does, of those that fits may use. They are chosen
        like the canary: the base model is sure of them. None until all that they are chosen from is there, so that the questions
        never change.
        """
        if not self._has_all and len(self._neutral.sentences) < CANDIDATES * SENTENCES:
            return None
        if self._inside_rows is None:
            ids = [sentence.ids for sentence in self._neutral.sentences]
            self._inside_rows = confident_rows(self._base, self._view_of(EMPTY), ids, SENTENCES, yield_to_answers)
        return self._share(overlay, self._inside_rows, yield_to_answers)

    def outside(self, overlay: Overlay, yield_to_answers: Callable[[], None]) -> Share | None:
        """The share of the canary, which no fit sees, that a version continues as the base does."""
        return self._share(overlay, self._neutral.canary, yield_to_answers)

    def capability(self, overlay: Overlay, yield_to_answers: Callable[[], None]) -> Share | None:
        """The capability on a fixed part of the server's tasks, as a share of the base model's."""
        score = self._capability_ratio(overlay, self._tasks, yield_to_answers) if self._tasks else None
        return None if score is None else Share(score, len(self._tasks))

    def _share(self, overlay: Overlay, rows: Sequence[Row], yield_to_answers: Callable[[], None]) -> Share | None:
        if not rows:
            return None
        view, right = self._view_of(overlay), 0
        for batch in split_batches(rows, ROWS_AT_ONCE):
            right += sum(greedy_matches(view, batch, overlay.adapter))
            yield_to_answers()
        return Share(right / len(rows), len(rows))


def choose_evenly(elements: Sequence[Element], most: int) -> tuple[Element, ...]:
    """At most `most` elements, evenly spaced; always the same ones."""
    count = min(most, len(elements))
    return tuple(elements[index * len(elements) // count] for index in range(count))


def split_batches(elements: Sequence[Element], size: int) -> Iterator[Sequence[Element]]:
    """The elements in batches of `size`; the last batch may be smaller."""
    return (elements[start : start + size] for start in range(0, len(elements), size))
