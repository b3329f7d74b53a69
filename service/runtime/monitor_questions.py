"""What the monitor asks of versions of one base model: a few questions at a time, each judged against the base or the edit."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from service.domain.edit import Edit
from service.editors.neutral import NeutralSentences, confident_rows
from service.evaluation.capability.measure import Task
from service.lifecycle.editors import MonitorProbes, Share
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import Row, encode_row
from service.lm.scoring import greedy_matches

ROWS_AT_ONCE = 16  # a quarter of a second of a small model on one busy core: so long an answer may wait for one piece
SENTENCES = 100  # as many as the canary has by default, so that the two figures are as sure
TASKS = 108  # of the tasks of a server, spread evenly over them

One = TypeVar("One")
Solved = Callable[[Overlay, Sequence[Task], Callable[[], None]], float | None]


class MonitorQuestions:
    """Asks overlays of one base. Used by one thread, the monitor's."""

    def __init__(
        self, base: Base, view_of: Callable[[Overlay], View], neutral: NeutralSentences, tasks: Sequence[Task], solved: Solved
    ) -> None:
        self._base, self._view_of, self._neutral, self._solved = base, view_of, neutral, solved
        self._tasks = spread(tasks, TASKS)
        self._inside: list[Row] | None = None

    def monitor_probes(self) -> MonitorProbes:
        """The questions as the monitor takes them."""
        return MonitorProbes(answered=self.answered, inside=self.inside, outside=self.outside, capability=self.capability)

    def answered(self, overlay: Overlay, edits: Sequence[Edit]) -> list[bool]:
        """Whether each edit's target is the whole greedy answer on each of its surfaces."""
        rows = [
            (at, encode_row(self._base, edit.prompt, edit.target, surface=surface))
            for at, edit in enumerate(edits)
            for surface in edit.surfaces or self._base.surfaces
        ]
        right = greedy_matches(self._view_of(overlay), [row for _, row in rows], overlay.adapter) if rows else []
        wrong = {at for (at, _), is_right in zip(rows, right, strict=True) if not is_right}
        return [at not in wrong for at in range(len(edits))]

    def inside(self, overlay: Overlay, between: Callable[[], None]) -> Share | None:
        """Neutral sentences that fits may use, chosen as the canary is: of what the base model is sure of."""
        if self._inside is None:
            ids = [sentence.ids for sentence in self._neutral.sentences]
            self._inside = confident_rows(self._base, self._view_of(EMPTY), ids, SENTENCES, between)
        return self._share(overlay, self._inside, between)

    def outside(self, overlay: Overlay, between: Callable[[], None]) -> Share | None:
        """The canary, which no fit sees."""
        return self._share(overlay, self._neutral.canary, between)

    def capability(self, overlay: Overlay, between: Callable[[], None]) -> Share | None:
        """A fixed part of the server's tasks, as a share of what the base model solves of them."""
        score = self._solved(overlay, self._tasks, between) if self._tasks else None
        return None if score is None else Share(score, len(self._tasks))

    def _share(self, overlay: Overlay, rows: Sequence[Row], between: Callable[[], None]) -> Share | None:
        if not rows:
            return None
        view, right = self._view_of(overlay), 0
        for some in pieces(rows, ROWS_AT_ONCE):
            right += sum(greedy_matches(view, some, overlay.adapter))
            between()
        return Share(right / len(rows), len(rows))


def spread(all_of: Sequence[One], most: int) -> tuple[One, ...]:
    """At most so many of a sequence, evenly over it: the same ones every time."""
    count = min(most, len(all_of))
    return tuple(all_of[at * len(all_of) // count] for at in range(count))


def pieces(all_of: Sequence[One], size: int) -> Iterator[Sequence[One]]:
    """A sequence in pieces of a size."""
    return (all_of[start : start + size] for start in range(0, len(all_of), size))
