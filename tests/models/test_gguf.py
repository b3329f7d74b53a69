"""GGUF files become models that answer as the models they were made of; hostile files become one sentence."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.domain.errors import Refused, Unavailable
from service.lm.base import build_base, load_base
from service.lm.overlay import compute_logits, make_view
from service.lm.prompts import collate
from service.models import gguf
from service.models.gguf import convert_file
from service.models.gguf_architectures import EDITABLE, check_architecture
from service.models.gguf_header import BLOCKS, read_header
from tests.builders import make_model, make_rows, make_tokenizer
from tests.models.gguf_files import gguf_bytes, small_values, write_model

ONE = {"token_embd.weight": torch.ones(2, 4)}
# What all published models of a family have in common, and a file of it does not say.
AS_PUBLISHED: dict[str, dict[str, object]] = {
    "gpt2": {"n_positions": 1024},
    "qwen2": {"tie_word_embeddings": True, "use_sliding_window": False},
    "qwen3": {"head_dim": 128},
}
needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in gguf.EXTRA), reason="the extra gguf is not installed"
)


def silent(_step: str) -> None:
    """Say nothing."""


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@needs_extra
@pytest.mark.parametrize("family", EDITABLE)
def test_a_converted_file_answers_as_the_model_that_it_was_made_of(family: str, tmp_path: Path) -> None:
    original = make_model(family, vocab_size=len(make_tokenizer()), **AS_PUBLISHED.get(family, {}))
    file = write_model(tmp_path / "some.gguf", family, original, general__license="mit", general__name="Tiny")

    made = convert_file(tmp_path / "models", file, say=silent)

    loaded = load_base(made.folder, device="cpu")
    expected = build_base(original, make_tokenizer())
    rows = make_rows(expected, [(9, 2)])
    torch.testing.assert_close(
        compute_logits(make_view(loaded), collate(loaded, rows)),
        compute_logits(make_view(expected), collate(expected, rows)),
        rtol=0,
        atol=1e-4,
    )
    text = "the thesis is 1969"
    assert loaded.tokenizer(text).input_ids == expected.tokenizer(text).input_ids
    assert (loaded.eos_ids, loaded.surfaces) == (expected.eos_ids, expected.surfaces)
    assert (made.card.licence, made.card.source) == ("mit", "Tiny")


@needs_extra
def test_a_file_is_converted_once_and_known_by_its_bytes(tmp_path: Path) -> None:
    file = write_model(tmp_path / "some.gguf", "llama", make_model(vocab_size=len(make_tokenizer())))
    made = convert_file(tmp_path / "models", file, say=silent)
    steps: list[str] = []

    again = convert_file(tmp_path / "models", written(tmp_path / "copy.gguf", file.read_bytes()), say=steps.append)

    assert again == made
    assert steps == ["reading the GGUF file"]


@needs_extra
def test_a_file_that_lacks_a_tensor_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model = make_model(vocab_size=len(make_tokenizer()))
    file = write_model(tmp_path / "some.gguf", "llama", model, llama__block_count=5)

    with pytest.raises(Refused, match="lacks tensors"):
        convert_file(tmp_path / "models", file, say=silent)

    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


@needs_extra
def test_numbers_that_no_memory_holds_are_one_sentence(tmp_path: Path) -> None:
    model = make_model(vocab_size=len(make_tokenizer()))
    file = write_model(tmp_path / "some.gguf", "llama", model, llama__feed_forward_length=2**31 - 1)

    with pytest.raises((Refused, Unavailable), match="GGUF file"):
        convert_file(tmp_path / "models", file, say=silent)


def test_without_its_packages_a_file_is_refused_with_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "EXTRA", ("no_such_package",))
    file = written(tmp_path / "some.gguf", gguf_bytes(small_values(), ONE))

    with pytest.raises(Refused, match=r"pip install 'errata-server\[gguf\]'"):
        convert_file(tmp_path / "models", file, say=silent)


def test_what_a_file_says_of_its_model_is_read(tmp_path: Path) -> None:
    values = small_values(general__license="apache-2.0", llama__rope__freq_base=1e4, tokenizer__ggml__add_bos_token=True)

    header = read_header(written(tmp_path / "some.gguf", gguf_bytes(values, ONE)))

    assert (header.architecture, header.elements, header.tensors) == ("llama", 8, ("token_embd.weight",))
    assert header.text("no.such.key", "general.license") == "apache-2.0"
    assert header.lengths == {"tokenizer.ggml.tokens": 2}
    check_architecture(header)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "another kind of file": lambda: b"PK\x03\x04" + bytes(100),
    "only the magic": lambda: b"GGUF",
    "version 1": lambda: b"GGUF\x01" + bytes(40),
    "big-endian": lambda: b"GGUF\x00\x00\x00\x03" + bytes(40),
    "many tensors": lambda: gguf_bytes(small_values(), ONE, counts=(2**63, 3)),
    "many keys": lambda: gguf_bytes(small_values(), ONE, counts=(1, 2**63)),
    "more tensors than there are": lambda: gguf_bytes(small_values(), ONE, counts=(90_000, 3)),
    "a long name": lambda: b"GGUF\x03\x00\x00\x00" + bytes([1] + [0] * 7) * 2 + b"\xff" * 8,
    "a name that is no text": lambda: gguf_bytes(small_values(), ONE).replace(b"general", b"gener\xff\xfe"),
    "the same key twice": lambda: gguf_bytes(small_values(llama__block_counu=1), ONE).replace(b"counu", b"count"),
    "a long list": lambda: gguf_bytes(small_values(), ONE).replace(b"\x08\0\0\0\2\0\0\0\0\0\0\0", b"\x08\0\0\0" + b"\x7f" * 8),
    "a list of lists": lambda: gguf_bytes(small_values(), ONE).replace(b"\x08\0\0\0\2\0\0\0\0\0\0\0", b"\x09\0\0\0\2" + bytes(7)),
    "a huge tensor": lambda: gguf_bytes(small_values(), ONE).replace(b"\4\0\0\0\0\0\0\0\2\0\0\0", b"\4\0\0\0\1\0\0\0\2\0\0\0"),
    "a tensor of no elements": lambda: gguf_bytes(small_values(), {"token_embd.weight": torch.ones(0, 4)}),
    "an odd alignment": lambda: gguf_bytes(small_values(general__alignment=3), ONE),
    "no architecture": lambda: gguf_bytes({"tokenizer.ggml.tokens": ["a"]}, ONE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^(The model's|The header of the model's) [^.]*GGUF file[^.]*\.$"):
        read_header(written(tmp_path / "some.gguf", HOSTILE[kind]()))


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gguf_bytes(small_values(), ONE)
    for length in range(len(whole)):
        with pytest.raises(Refused):
            read_header(written(tmp_path / "some.gguf", whole[:length]))
    assert read_header(written(tmp_path / "some.gguf", whole)).elements == 8


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    whole = gguf_bytes(small_values(), {"a": torch.ones(8), "b": torch.zeros(8)})
    table = whole.index(b"\1\0\0\0\0\0\0\0b")
    shared = whole[:table] + whole[table:].replace(b"\x20\0\0\0\0\0\0\0", bytes(8), 1)

    with pytest.raises(Refused, match="tensors"):
        read_header(written(tmp_path / "some.gguf", shared))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (small_values("mamba"), "mamba"),
        (small_values("x\x1b[31m"), "an unknown architecture"),
        (small_values(llama__block_count=2**31), "blocks"),
        (small_values(tokenizer__ggml__tokens=["a"] * 9), "tokens"),
        (small_values(llama__rope__scaling__type="yarn"), "rotary"),
        (small_values(tokenizer__ggml__model="gpt2", tokenizer__ggml__pre="no-such-split"), "splits"),
    ],
)
def test_what_cannot_be_edited_or_would_be_lost_is_refused(values: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        check_architecture(read_header(written(tmp_path / "some.gguf", gguf_bytes(values, ONE))))

    assert "\x1b" not in refused.value.message


@needs_extra
def test_the_sizes_of_blocks_are_those_of_the_reader() -> None:
    from gguf import GGML_QUANT_SIZES

    theirs = {int(kind): tuple(sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind: theirs.get(kind) for kind in BLOCKS} == BLOCKS
