"""Answers of the base model to prompts that begin alike: keys and values of what they share are computed once."""

import time
from collections.abc import Sequence

from service.lm.decoding import Decoding
from service.lm.overlay import View
from service.lm.row_groups import split_in_order
from service.lm.scoring import decode_greedily, finish_greedily

Ids = tuple[int, ...]


class SharedPrefix:
    """Decodes greedily. What was shared last is kept for further prompts that begin with it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._shared: Ids = ()
        self._trunk: Decoding | None = None
        self.seconds = 0.0  # that the kept beginning took

    def decode(self, prompts: Sequence[Ids], limit: int) -> list[Ids]:
        """The answers in order, each of at most `limit` tokens."""
        beginning = _common_beginning(prompts)
        if not all(map(self._goes_on, prompts)) or (len(prompts) > 1 and len(beginning) > len(self._shared)):
            self._keep(beginning)
        if self._trunk is None:
            return decode_greedily(self._view, None, prompts, max_new_tokens=limit)
        answers: list[Ids] = [()] * len(prompts)
        for length in sorted({len(prompt) for prompt in prompts}):
            numbers = [number for number, prompt in enumerate(prompts) if len(prompt) == length]
            for span in split_in_order([length + limit] * len(numbers)):
                chunk = numbers[span.start : span.stop]
                branched = self._trunk.branch([prompts[number][len(self._shared) :] for number in chunk])
                written = finish_greedily(self._view.base, branched, [length] * len(chunk), limit)
                for number, ids in zip(chunk, written, strict=True):
                    answers[number] = ids
        return answers

    def _goes_on(self, prompt: Ids) -> bool:
        return self._trunk is not None and len(prompt) > len(self._shared) and prompt[: len(self._shared)] == self._shared

    def _keep(self, shared: Ids) -> None:
        started_at = time.perf_counter()
        self._shared, self._trunk = shared, Decoding(self._view, [None], [shared]) if shared else None
        self.seconds = time.perf_counter() - started_at


def _common_beginning(prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with, short of the last token of the shortest one."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    same = next((place for place in range(most) if first[place] != last[place]), most)
    return first[:same]
