"""Encoding and decoding of users' text: it never becomes a control token, and what tokenizers choke on is refused first."""

from collections.abc import Sequence

from service.domain.errors import Refused, TooLong
from service.domain.writing_systems import is_spaceless
from service.lm.base import Base

MAX_CHARACTERS = 1_000_000  # tokenizing ten times as much took 20 s
CHARACTERS_PER_TOKEN = 64  # no text in use averages more, so anything longer cannot fit the context


def encode_text(base: Base, text: str, *, field: str) -> tuple[int, ...]:
    """The ids of a user's text alone, without BOS; text that looks like a control token is encoded as the letters it is."""
    _check(base, text, field)
    with base.tokenizer_lock:
        ids = tuple(base.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
    if not base.control_ids.isdisjoint(ids):
        raise Refused(f"The {field} holds a control token of the model, which its tokenizer cannot take as text.", field=field)
    return ids


def decode_answer(base: Base, ids: Sequence[int]) -> str:
    """The text of an answer: control tokens left out, leading white space stripped; half a character shows as U+FFFD."""
    return decode_ids(base, ids).lstrip()


def decode_ids(base: Base, ids: Sequence[int]) -> str:
    """The text of ids, control tokens left out."""
    with base.tokenizer_lock:
        text: str = base.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def joins_without_space(before: str, after: str) -> bool:
    """Whether two pieces of text meet without a space because the script of either side writes none."""
    return is_spaceless(before[-1:]) or is_spaceless(after[:1])


def _check(base: Base, text: str, field: str) -> None:
    if len(text) > min(MAX_CHARACTERS, CHARACTERS_PER_TOKEN * base.context_length):
        raise TooLong(f"The {field} is longer than the model's context of {base.context_length} tokens allows.", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"The {field} is not valid Unicode text.", field=field) from error
