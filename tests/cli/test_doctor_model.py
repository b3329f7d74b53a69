"""`errata doctor` says of a model folder what a start would say of it, without reading the weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli.doctor import Finding, _model
from service.domain.errors import Corrupt, ServiceError
from service.lm import sentencepiece_file
from service.runtime.base_model import open_base
from service.runtime.editors import check_editors
from service.runtime.model_check import describe_model
from service.settings import Settings
from tests.api.live_server import tiny_settings
from tests.builders import save_model
from tests.composites import TEXTLESS, save_composite, save_config

ATTENTION = {"locft": {"kind": "attention"}, "lora": {"kind": "attention"}}


def start(settings: Settings) -> None:
    """What a start checks of its model."""
    base, _ = open_base(settings)
    check_editors(base, settings)


def save_adapter(folder: Path) -> None:
    save_model(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def save_with_sentencepiece_alone(folder: Path) -> None:
    save_model(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


@pytest.mark.parametrize(
    ("save", "more", "words"),
    [
        (lambda folder: save_model(folder), {}, "llama, 4 blocks"),
        (lambda folder: save_composite(folder, "gemma3"), {}, "gemma3_text, the text part of gemma3, 4 blocks"),
        (lambda folder: save_model(folder, "mixtral"), ATTENTION, "mixtral, 4 blocks"),
    ],
    ids=["text", "composite", "experts alone"],
)
def test_a_model_that_starts_is_described(
    save: Callable[[Path], object], more: dict[str, object], words: str, tmp_path: Path
) -> None:
    save(tmp_path / "model")
    settings = tiny_settings(tmp_path / "model", tmp_path, **more)

    assert _model(settings) == Finding("model", "ok", f"{tmp_path / 'model'}: {words}")
    start(settings)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        *(
            (lambda folder, family=family: save_config(folder, family), "no causal class for their text part")
            for family in TEXTLESS
        ),
        (save_adapter, "remove adapter_config.json"),
        (save_with_sentencepiece_alone, "errata-server[sentencepiece]"),
        (lambda folder: save_model(folder, "mixtral"), "Set locft.kind to another location, such as attention or block."),
    ],
    ids=[*TEXTLESS, "adapter", "sentencepiece", "experts alone"],
)
def test_a_model_that_does_not_start_has_the_sentence_of_the_start(
    save: Callable[[Path], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentencepiece_file, "EXTRA", ("no_such_package",))
    save(tmp_path / "model")
    settings = tiny_settings(tmp_path / "model", tmp_path)

    finding = _model(settings)

    with pytest.raises(ServiceError) as caught:
        start(settings)
    assert (finding.verdict, finding.detail) == ("bad", f"{tmp_path / 'model'}: {caught.value.message}")
    assert words in finding.detail and "\n" not in finding.detail


def test_weights_that_end_too_early_are_found_by_the_doctor(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(Corrupt, match="weight files are damaged"):
        describe_model(tmp_path / "model", tiny_settings(tmp_path / "model", tmp_path / "data"))
