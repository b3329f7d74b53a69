"""A tokenizer that is only a file of SentencePiece is read as SentencePiece reads it, or is refused with what helps."""

import io
import json
from pathlib import Path

import pytest

from service.domain.errors import Refused
from service.lm import sentencepiece_file
from service.lm.base import load_base, sketch_base
from service.lm.export import write_export
from service.lm.overlay import EMPTY
from service.lm.prompts import encode_prompt
from service.lm.tokenizing import decode_answer
from tests.builders import make_model

SENTENCES = [
    "The capital of the sea is blue.",
    "What is the colour of the house over there?",
    "a b, and why is it so?",
    "Paris lies in Rome; snow lies in Bonn. The sea is 12.",
]
# As folders have it that an older transformers saved.
SETTINGS = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "legacy": False,
}

AS_LLAMA = {
    "model_type": "bpe",
    "vocab_size": 310,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}


def vocabulary(**options: object) -> bytes:
    """A file of SentencePiece that was trained as Llama's was, on a few sentences."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra sentencepiece is not installed")
    pytest.importorskip("google.protobuf", reason="the extra sentencepiece is not installed")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=file, num_threads=1, minloglevel=2, **AS_LLAMA | options
    )
    return file.getvalue()


def save_folder(folder: Path, data: bytes, settings: dict[str, object] | None = SETTINGS) -> Path:
    """A Llama whose tokenizer is `data` as tokenizer.model alone."""
    make_model(vocab_size=320, bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(data)
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_text_has_the_ids_of_sentencepiece_after_the_begin_token(tmp_path: Path) -> None:
    base = load_base(save_folder(tmp_path, vocabulary()))

    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in (*SENTENCES, "Ein Haus aus Öl, 東京", "two  spaces"):
        ids = encode_prompt(base, text)
        assert list(ids) == [base.bos_id, *processor.encode(text)]
        assert decode_answer(base, ids) == text
    assert (base.bos_id, base.eos_ids) == (1, (2,))


def test_an_export_has_a_tokenizer_that_needs_no_extra(tmp_path: Path) -> None:
    base = load_base(save_folder(tmp_path / "model", vocabulary()))

    write_export(base, EMPTY, tmp_path / "out", manifest={})

    assert not sentencepiece_file.is_alone(tmp_path / "out")
    assert encode_prompt(load_base(tmp_path / "out"), "The sea is 12") == encode_prompt(base, "The sea is 12")


@pytest.mark.parametrize("load", [load_base, sketch_base])
def test_without_its_packages_the_refusal_names_the_extra(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece_file, "EXTRA", ("no_such_package.part",))

    with pytest.raises(Refused, match=r"pip install 'errata-server\[sentencepiece\]'") as caught:
        load(save_folder(tmp_path, b"any"))
    assert caught.value.field == "model"


def test_without_its_settings_the_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece_file, "EXTRA", ())

    with pytest.raises(Refused, match=r"tokenizer_config\.json beside it"):
        load_base(save_folder(tmp_path, b"any", settings=None))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"bos_token": "<s>", "eos_token": "</s>"}),  # no class: transformers' default knows no leading space
        ({"model_type": "unigram", "byte_fallback": False, "vocab_size": 40}, SETTINGS),  # a class of another kind
    ],
    ids=["no class", "another kind"],
)
def test_a_file_that_transformers_would_read_otherwise_is_refused(
    options: dict[str, object], settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="as SentencePiece reads it"):
        load_base(save_folder(tmp_path, vocabulary(**options), settings))


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    vocabulary()  # skips without the packages

    with pytest.raises(Refused, match=r"tokenizer\.model is no file of SentencePiece"):
        load_base(save_folder(tmp_path, b"IQ== 0\nIg== 1\n"))


def test_a_file_too_large_for_a_vocabulary_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece_file, "EXTRA", ())
    monkeypatch.setattr(sentencepiece_file, "MAX_BYTES", 2)

    with pytest.raises(Refused, match="too large"):
        load_base(save_folder(tmp_path, b"any"))
