"""The settled part of a text: what is shown while tokens still come is never taken back."""

import random
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from service.lm.base import Base, build_base
from service.lm.tokenizing import decode_ids, decode_settled
from tests.builders import make_base, make_model


def base_with_byte_fallback() -> Base:
    """A base whose tokenizer writes what it does not know as byte tokens, as SentencePiece does."""
    tokens = ["<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁the", "é"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    return build_base(make_model(vocab_size=len(tokens)), tokenizer)


def bytes_of(base: Base, text: str) -> list[int]:
    """The ids of a text as one token a byte."""
    if base.tokenizer.convert_tokens_to_ids("<0x0A>") not in (None, base.tokenizer.unk_token_id):
        return [base.tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in text.encode()]
    return list(base.tokenizer(text, add_special_tokens=False).input_ids)


def drawn_ids(base: Base, draw: random.Random) -> list[int]:
    """Whole characters, halves of characters, letters and control tokens, in any order."""
    letters = [[base.tokenizer.convert_tokens_to_ids(letter)] for letter in "ab"]
    pieces = [*letters, *(bytes_of(base, character) for character in ("é", "€", "😀", "a", " ")), [0], [2]]
    ids: list[int] = []
    for _ in range(draw.randint(1, 12)):
        piece = draw.choice(pieces)
        ids += piece[: draw.randint(1, len(piece))]
    return ids


@pytest.mark.parametrize("build", [make_base, base_with_byte_fallback])
def test_settled_text_is_a_prefix_of_the_text_whatever_follows(build: Callable[[], Base]) -> None:
    base, draw = build(), random.Random(5)
    for _ in range(400):
        ids = drawn_ids(base, draw)
        texts = [decode_ids(base, ids[:length]) for length in range(len(ids) + 1)]
        for length in range(len(ids) + 1):
            settled = decode_settled(base, ids[:length])
            assert all(text.startswith(settled) for text in texts[length:])


def test_characters_of_several_tokens_are_settled_with_their_last_token() -> None:
    base = make_base()

    ids = bytes_of(base, "a€ 😀b")

    assert [decode_settled(base, ids[: length + 1]) for length in range(len(ids))] == [
        *("a", "a", "a", "a€", "a€ "),
        *("a€ ", "a€ ", "a€ ", "a€ 😀", "a€ 😀b"),
    ]


def test_a_run_of_byte_tokens_is_settled_when_it_ends() -> None:
    """Its text changes until then: a decoder with byte fallback takes a whole run for wrong if its last character is cut."""
    base = base_with_byte_fallback()
    letter = base.tokenizer.convert_tokens_to_ids("a")
    ids = [letter, *bytes_of(base, "é€"), letter]

    assert decode_ids(base, ids[:3]) == "aé"
    assert decode_ids(base, ids[:4]) == "a\ufffd\ufffd\ufffd"
    assert [decode_settled(base, ids[: length + 1]) for length in range(len(ids))] == ["a"] * 6 + ["aé€a"]
