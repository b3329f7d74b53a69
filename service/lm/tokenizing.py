"""Encoding and decoding of users' text. Text never becomes a control token; text that tokenizers cannot take is refused."""

import re
from collections.abc import Sequence

from service.domain.errors import Refused, TooLong
from service.domain.writing_systems import is_spaceless
from service.lm.base import Base

MAX_CHARACTERS = 1_000_000  # tokenizing ten times as much took 20 s
CHARACTERS_PER_TOKEN = 64  # no text in use averages more, so anything longer cannot fit the context
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders write it for an invalid or incomplete character
BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")  # of SentencePiece with byte fallback


def encode_text(base: Base, text: str, *, field: str) -> tuple[int, ...]:
    """The ids of a user's text, without BOS. The name of a control token in it is encoded as plain letters.

    Raises Refused for a control token that the tokenizer cannot split, for a token that the model has no embedding of and for
    invalid Unicode, TooLong for a text beyond the context.
    """
    _check(base, text, field)
    with base.tokenizer_lock:
        ids = tuple(base.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
    if not base.control_ids.isdisjoint(ids):
        raise Refused(f"The {field} holds a control token of the model, which its tokenizer cannot take as text.", field=field)
    if ids and max(ids) >= base.id_count:
        raise Refused(f"The {field} holds a token of the tokenizer that the model has no embedding of.", field=field)
    return ids


def decode_answer(base: Base, ids: Sequence[int]) -> str:
    """The text of an answer, without control tokens and leading white space. Half a character becomes U+FFFD."""
    return decode_ids(base, ids).lstrip()


def decode_ids(base: Base, ids: Sequence[int]) -> str:
    """The text of ids, without control tokens."""
    with base.tokenizer_lock:
        text: str = base.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def decode_settled(base: Base, ids: Sequence[int]) -> str:
    """The part of the text of ids that no further id can change: a prefix of `decode_ids` of these ids and any that follow.

    It ends before an incomplete character, and before a run of byte tokens: decoders with byte fallback write a whole run as
    U+FFFD if one character of it is incomplete.
    """
    end = len(ids)
    while end and (ids[end - 1] in base.control_ids or _is_byte(base, ids[end - 1])):
        end -= 1
    return decode_ids(base, ids[:end]).rstrip(REPLACEMENT)


def _is_byte(base: Base, token: int) -> bool:
    return BYTE_TOKEN.fullmatch(base.tokenizer.convert_ids_to_tokens(token) or "") is not None


def joins_without_space(before: str, after: str) -> bool:
    """Whether two texts join without a space because the script of either one sets none."""
    return is_spaceless(before[-1:]) or is_spaceless(after[:1])


def _check(base: Base, text: str, field: str) -> None:
    if len(text) > min(MAX_CHARACTERS, CHARACTERS_PER_TOKEN * base.context_length):
        raise TooLong(f"The {field} is longer than the model's context of {base.context_length} tokens allows.", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"The {field} is not valid Unicode text.", field=field) from error
