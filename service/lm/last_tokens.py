"""Which tokens of a prompt BaFT intervenes on. A function of the prompt's ids alone, so that training, serving and scoring agree.

BaFT intervenes on the last tokens of the input (BaFT paper, section 2.4 and Table 5). On the surface `chat` the last ids of an
input are the template's own and the same for every prompt; the user's text ends before them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

TextPosition = Literal["prompt_end", "text_end", "both"]


@dataclass(frozen=True)
class LastTokens:
    """The last `count` tokens of a prompt, of the user's text in it, or both.

    `tail` are the ids that the chat template puts behind the user's last text. A prompt that does not end with them, such as one
    of raw text, is all text. Without a `tail` nothing but the prompt's end is known.
    """

    count: int = 3
    at: TextPosition = "prompt_end"
    tail: tuple[int, ...] = ()

    def positions(self, prompt: Sequence[int], first: int) -> list[int]:
        """The positions of a prompt from `first` on, in order; fewer where it is shorter."""
        return sorted({place for end in self._ends(prompt) for place in range(max(end - self.count, first), end)})

    def describe(self) -> dict[str, Any]:
        """These tokens as a JSON object. The prompt's own last tokens are described as by releases that knew no others."""
        return {"last": self.count} if self.at == "prompt_end" else {"last": self.count, "at": self.at, "tail": list(self.tail)}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The tokens of a description. Raises KeyError, TypeError or ValueError for what is none."""
        at = description.get("at", "prompt_end")
        if at not in ("prompt_end", "text_end", "both"):
            raise ValueError("a position that is none")
        return cls(int(description["last"]), at, tuple(int(token) for token in description.get("tail", ())))

    def _ends(self, prompt: Sequence[int]) -> set[int]:
        """Where the chosen tokens end: indexes behind them."""
        end = len(prompt)
        text_end = end - len(self.tail) if self.tail and tuple(prompt[-len(self.tail) :]) == self.tail else end
        return {"prompt_end": {end}, "text_end": {text_end}, "both": {text_end, end}}[self.at]
