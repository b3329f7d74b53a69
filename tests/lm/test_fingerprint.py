"""The fingerprint of a base: the same however its files are written, another one as soon as something that is used differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.domain.errors import Refused
from service.lm.base import load_base
from service.lm.fingerprint import fingerprint_of, is_first_form
from service.lm.model_files import fingerprint_of_bytes
from tests.builders import CHAT_TEMPLATE, make_model, save_model

WEIGHTS = "model.safetensors"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def with_fields(name: str, **fields: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        (folder / name).write_text(json.dumps(content | fields))

    return change


def with_text(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def rewritten(folder: Path) -> None:
    """Every JSON file with other white space and the keys in reverse order."""
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(content.items())), indent=7, ensure_ascii=True) + "\n\n")


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    make_model().save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 1


def with_shards_of_other_names(folder: Path) -> None:
    sharded(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for path in folder.glob("*.safetensors"):
        path.rename(folder / f"part-{path.name}")
    index["weight_map"] = {name: f"part-{shard}" for name, shard in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_the_template_in_the_configuration(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with_fields("tokenizer_config.json", chat_template=CHAT_TEMPLATE)(folder)


def with_dtype_spelled_as_before(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"torch_dtype": content.pop("dtype")}))


def with_another_tensor(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["model.norm.weight"] = change(weights["model.norm.weight"])
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


UNUSED: dict[str, Change] = {
    "another temperature": with_fields("generation_config.json", temperature=0.3, top_p=0.5, do_sample=True),
    "a maximal length": with_fields("generation_config.json", max_length=7, repetition_penalty=5.0),
    "no generation settings": lambda folder: (folder / "generation_config.json").unlink(),
    "white space and order": rewritten,
    "a comment in the configuration": with_fields("config.json", _comment="ours"),
    "a comment in the tokenizer's configuration": with_fields("tokenizer_config.json", _comment="ours"),
    "a comment in the template": with_text("chat_template.jinja", "{% for", "{#- ours -#}{# really #}{% for"),
    "white space within a tag": with_text("chat_template.jinja", "{% for m in", "{%   for m  in"),
    "the template elsewhere": with_the_template_in_the_configuration,
    "a page about the model": lambda folder: (folder / "README.md").write_text("not part of the model"),
    "dtype": with_dtype_spelled_as_before,
    "where it came from": with_fields("config.json", _name_or_path="elsewhere", transformers_version="5.99.0"),
    "the tokenizer's place": with_fields("tokenizer_config.json", name_or_path="elsewhere", is_local=True),
    "shards": sharded,
    "names of shards": with_shards_of_other_names,
    "metadata of the weights": lambda folder: save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={"format": "np"}),
}
USED: dict[str, Change] = {
    "a number of a tensor": lambda folder: with_another_tensor(folder, lambda tensor: tensor + 1),
    "a tensor's dtype": lambda folder: with_another_tensor(folder, lambda tensor: tensor.half()),
    "a tensor's shape": lambda folder: with_another_tensor(folder, lambda tensor: tensor.reshape(2, -1)),
    "the norm's epsilon": with_fields("config.json", rms_norm_eps=1e-3),
    "a field that nobody knows": with_fields("config.json", rope_of_tomorrow=1),
    "an unknown field of the tokenizer": with_fields("tokenizer_config.json", extra=1),
    "a further end": with_fields("generation_config.json", eos_token_id=[1, 4]),
    "the end in the configuration": with_fields("config.json", eos_token_id=4),
    "the tokenizer's end": with_fields("tokenizer_config.json", eos_token="<pad>"),
    "the tokenizer's begin": with_fields("tokenizer_config.json", bos_token="<pad>"),
    "a normaliser": with_fields("tokenizer.json", normalizer={"type": "Lowercase"}),
    "a merge less": with_text("tokenizer.json", '"Ġ",\n        "S"', '"Ġ",\n        "T"'),
    "no begin": with_fields("tokenizer.json", post_processor=None),
    "the template's text": with_text("chat_template.jinja", "assistant", "Assistant"),
    "white space of the output": with_text("chat_template.jinja", "<|im_end|>\n", "<|im_end|>\n\n"),
    "no template": lambda folder: (folder / "chat_template.jinja").unlink(),
}


@pytest.mark.parametrize("change", UNUSED.values(), ids=UNUSED)
def test_what_is_not_used_does_not_count(change: Change, saved: Path, folder: Path) -> None:
    change(folder)

    assert fingerprint_of_bytes(folder) != fingerprint_of_bytes(saved) or (folder / "README.md").is_file()
    assert fingerprint_of(folder) == fingerprint_of(saved)
    assert load_base(folder).eos_ids == load_base(saved).eos_ids


@pytest.mark.parametrize("change", USED.values(), ids=USED)
def test_what_is_used_counts(change: Change, saved: Path, folder: Path) -> None:
    change(folder)

    assert fingerprint_of(folder) != fingerprint_of(saved)


def test_ends_count_once_and_in_the_order_in_which_they_are_tried(saved: Path, folder: Path) -> None:
    with_fields("generation_config.json", eos_token_id=[1, 1])(folder)
    assert fingerprint_of(folder) == fingerprint_of(saved)

    with_fields("generation_config.json", eos_token_id=[4, 1])(folder)
    other = fingerprint_of(folder)
    with_fields("generation_config.json", eos_token_id=[1, 4])(folder)
    assert fingerprint_of(folder) != other


def test_a_vocabulary_of_several_files_counts_without_the_comment_of_its_merges(saved: Path, folder: Path) -> None:
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    (folder / "vocab.json").write_text('{"t": 0, "h": 1, "//": 2}')
    several = fingerprint_of(folder)
    assert several != fingerprint_of(saved)

    (folder / "merges.txt").write_text("#version: 0.3 - ours\nt h\n")
    (folder / "vocab.json").write_text('{"h": 1,\n "//": 2, "t": 0}')
    assert fingerprint_of(folder) == several

    (folder / "vocab.json").write_text('{"h": 1, "//": 3, "t": 0}')  # a token of this name is no comment
    assert fingerprint_of(folder) != several
    (folder / "vocab.json").write_text('{"h": 1, "//": 2, "t": 0}')
    (folder / "merges.txt").write_text("#version: 0.3 - ours\nh t\n")
    assert fingerprint_of(folder) != several


def test_the_default_one_of_several_templates_counts(folder: Path) -> None:
    whole = fingerprint_of(folder)
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHAT_TEMPLATE}]
    with_fields("tokenizer_config.json", chat_template=named)(folder)

    assert load_base(folder).tokenizer.get_chat_template() == CHAT_TEMPLATE
    assert fingerprint_of(folder) == whole


def test_a_weight_file_that_is_not_loaded_does_not_count(saved: Path, folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")

    assert fingerprint_of(folder) == fingerprint_of(saved)


def test_a_file_that_the_configuration_names_is_the_one_that_counts(saved: Path, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "mine.safetensors")
    save_model(folder.with_name("other"), seed=1)
    shutil.copy(folder.with_name("other") / WEIGHTS, folder / WEIGHTS)
    with_fields("config.json", transformers_weights="mine.safetensors")(folder)
    named = fingerprint_of(folder)

    (folder / WEIGHTS).unlink()

    assert fingerprint_of(folder) == named


def test_weights_in_another_folder_are_refused(folder: Path) -> None:
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for name in ("../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors"):
        index.write_text(json.dumps(content | {"weight_map": {"x": name}}))
        with pytest.raises(Refused, match="another folder"):
            fingerprint_of(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"[]",
        (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'[:40],
        *(
            len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
            for header in (
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-900,4]}}',
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[99999999999999999999,999999999999999999999]}}',
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":"ab"}}',
                b'{"a":{"dtype":"F32","shape":7,"data_offsets":[0,4]}}',
                b'{"a":7}',
                b"[" * 5000,
            )
        ),
    ],
)
def test_a_damaged_weight_file_is_refused_by_name(data: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(data)

    with pytest.raises((Refused, OSError)) as caught:
        fingerprint_of(folder)
    assert not isinstance(caught.value, Refused) or WEIGHTS in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a":' * 5000])
def test_a_damaged_json_file_is_refused_by_name(text: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(text)

    with pytest.raises(Refused, match=r"tokenizer\.json"):
        fingerprint_of(folder)


def test_weights_are_read_in_pieces_and_give_way_between_them(folder: Path) -> None:
    gave: list[None] = []

    fingerprint_of(folder, lambda: gave.append(None))

    assert len(gave) == len(load_file(folder / WEIGHTS))


def test_an_older_release_pinned_the_bytes_and_a_base_knows_itself_by_them(folder: Path) -> None:
    base, former = load_base(folder), fingerprint_of_bytes(folder)

    assert is_first_form(former) and not is_first_form(base.fingerprint)
    assert base.is_pinned_as(former) and base.is_pinned_as(base.fingerprint)
    assert not base.is_pinned_as("0" * 64)
    assert not base.is_pinned_as("2:" + "0" * 64)
