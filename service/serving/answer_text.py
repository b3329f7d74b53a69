"""The text of an answer: white space in front stripped unless it is kept, cut before the first stop string. Knows no threads and
no batches.
"""

from collections.abc import Sequence

from service.lm.base import Base
from service.lm.tokenizing import decode_ids, decode_settled


def whole_text(base: Base, ids: Sequence[int], stop: Sequence[str], *, keeps_space: bool = False) -> str:
    """The text of all the tokens of an answer. Half a character at the end is U+FFFD."""
    text = decode_ids(base, ids)
    return _strip(text[: find_stop(text, stop)], keeps_space)


def settled_text(base: Base, ids: Sequence[int], stop: Sequence[str], *, keeps_space: bool = False) -> str:
    """The part of the text that no further token can change: a prefix of `whole_text` of these ids and any that follow.

    It ends before what may be the beginning of a stop string.
    """
    text = decode_settled(base, ids)
    end = find_stop(text, stop)
    return _strip(text[: len(text) - _begun_stop(text, stop) if end is None else end], keeps_space)


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """The position of the first stop string in a text, or None."""
    positions = [position for position in (text.find(one) for one in stop) if position >= 0]
    return min(positions, default=None)


def _strip(text: str, keeps_space: bool) -> str:
    return text if keeps_space else text.lstrip()


def _begun_stop(text: str, stop: Sequence[str]) -> int:
    """The number of characters at the end of a text that may be the beginning of a stop string."""
    lengths = (length for one in stop for length in range(1, len(one)) if text.endswith(one[:length]))
    return max(lengths, default=0)
