"""The request for one answer. Knows no batches.

All parameters are explicit. The generation defaults of a checkpoint (repetition penalty, sampling, length) are never used.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.domain.errors import Refused, TooLong
from service.lm.base import Base

MOST_LOGPROBS = 20  # likeliest tokens of one position
FinishReason = Literal["stop", "length", "deadline", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The request. `version` None is the head at submission. `deadline` is a time of the monotonic clock, in seconds."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    version: int | None = None
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float | None = None
    keeps_space: bool = False  # the text begins with the model's own white space
    top_logprobs: int | None = None  # the likeliest tokens that are told of each position; None: no probabilities at all
    cancelled: threading.Event = field(default_factory=threading.Event)
    asked_ids: Sequence[int] | None = None  # the prompt without what its version states in front of it; None: nothing is

    @property
    def context_tokens(self) -> int:
        """The number of tokens that stand in front of the prompt."""
        return 0 if self.asked_ids is None else len(self.prompt_ids) - len(self.asked_ids)


def check_generation(base: Base, generation: Generation) -> None:
    """Raise Refused or TooLong for an invalid request. Nothing is cut or rounded to fit."""
    if not generation.prompt_ids:
        raise Refused("The prompt is blank.", field="prompt")
    if max(generation.prompt_ids) >= base.id_count:  # on a device such a lookup would end every later computation
        raise Refused("The prompt holds a token that the model has no embedding of.", field="prompt")
    if generation.max_new_tokens < 1:
        raise Refused("max_new_tokens must be at least 1.", field="max_new_tokens")
    if len(generation.prompt_ids) + generation.max_new_tokens > base.context_length:
        raise TooLong(
            f"The prompt and max_new_tokens together exceed the model's context of {base.context_length} tokens.", field="prompt"
        )
    if not (math.isfinite(generation.temperature) and generation.temperature >= 0):
        raise Refused("temperature must be 0 or a finite positive number.", field="temperature")
    if not 0 < generation.top_p <= 1:
        raise Refused("top_p must be more than 0 and at most 1.", field="top_p")
    if generation.top_logprobs is not None and not 0 <= generation.top_logprobs <= MOST_LOGPROBS:
        raise Refused(f"top_logprobs must be 0 to {MOST_LOGPROBS}.", field="top_logprobs")
    if any(not text for text in generation.stop):
        raise Refused("A stop string must not be empty.", field="stop")
