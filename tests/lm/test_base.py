"""Loading a base: refusals, recorded facts, and no use of a checkpoint's default settings."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.domain.errors import Corrupt, Refused, ServiceError, Unavailable
from service.lm.base import load_base
from service.lm.fingerprint import fingerprint_of
from service.lm.model_files import fingerprint_of_bytes
from service.lm.overlay import compute_logits, make_view
from service.lm.prompts import collate
from tests.builders import FAMILIES, make_base, make_rows, save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    target = tmp_path / "model"
    target.mkdir()
    for path in saved.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_of_every_family_answers_as_before(family: str, tmp_path: Path) -> None:
    rows = make_rows(make_base(family), [(4, 2)])
    loaded = load_base(str(save_model(tmp_path, family)))

    expected = make_base(family)
    got = compute_logits(make_view(loaded), collate(loaded, rows))

    torch.testing.assert_close(got, compute_logits(make_view(expected), collate(expected, rows)), rtol=0, atol=1e-5)


def test_a_base_on_the_cpu_is_fp32_and_frozen_and_evaluating(saved: Path) -> None:
    base = load_base(str(saved), device="cpu")

    assert base.dtype == torch.float32 and base.context_length == 128
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_dtype_can_be_chosen_and_an_unknown_one_is_refused(saved: Path) -> None:
    assert load_base(str(saved), dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(Refused) as caught:
        load_base(str(saved), dtype="int4")
    assert caught.value.field == "dtype"


def test_a_missing_device_is_refused(saved: Path) -> None:
    missing = ["no_such_device"] if torch.cuda.is_available() else ["no_such_device", "cuda", "cuda:1"]
    for device in missing:
        with pytest.raises(Refused) as caught:
            load_base(str(saved), device=device)
        assert caught.value.field == "device"


def test_gemma_2_is_loaded_with_eager_attention_for_soft_capping(tmp_path: Path) -> None:
    base = load_base(str(save_model(tmp_path, "gemma2")))
    assert base.model.config._attn_implementation == "eager"


def test_overwriting_the_weight_files_after_loading_changes_no_answer(folder: Path) -> None:
    base = load_base(str(folder), device="cpu")
    batch = collate(base, make_rows(base, [(4, 2)]))
    before = compute_logits(make_view(base), batch)

    with (folder / "model.safetensors").open("r+b") as file:  # as `cp other.safetensors model.safetensors` does
        size = file.seek(0, 2)
        file.seek(size // 4)
        file.write(b"\x3f" * (size - size // 4))

    torch.testing.assert_close(compute_logits(make_view(base), batch), before, rtol=0, atol=0)


def test_no_model_file_stays_mapped_so_truncation_ends_no_process(folder: Path) -> None:
    base = load_base(str(folder), device="cpu")

    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert base.model is not None


def test_tied_tensors_stay_one_tensor(tmp_path: Path) -> None:
    base = load_base(str(save_model(tmp_path, tie_word_embeddings=True)), device="cpu")
    assert base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_changes_while_it_is_read_is_noticed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.lm import base as module

    def fingerprint_then_write(of: Path) -> str:
        found = fingerprint_of(of)
        data = (of / name).read_bytes()
        (of / name).write_bytes(data)
        return found

    monkeypatch.setattr(module, "fingerprint_of", fingerprint_then_write)
    with pytest.raises(Unavailable, match="changed while"):
        load_base(str(folder), device="cpu")


def test_files_that_changed_since_the_load_are_not_compared_with_an_older_pin(folder: Path) -> None:
    base, former = load_base(str(folder), device="cpu"), fingerprint_of_bytes(folder)
    (folder / "README.md").write_text("not part of the model")
    assert base.is_pinned_as(former)

    (folder / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(Unavailable, match="changed while"):
        base.is_pinned_as(former)


def test_code_beside_the_weights_is_refused_by_file_name(folder: Path) -> None:
    (folder / "modeling_mine.py").write_text("raise SystemExit")
    with pytest.raises(Refused, match=r"modeling_mine\.py"):
        load_base(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_file_that_asks_for_its_own_code_is_refused_by_name(folder: Path, name: str) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}))
    with pytest.raises(Refused, match=name.replace(".", r"\.")):
        load_base(str(folder))


def test_pickled_weights_are_refused_without_being_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(Refused, match="safetensors"):
        load_base(str(folder))


def test_an_adapter_without_its_model_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/tiny"}))
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(Refused, match=r"PEFT adapter \(adapter_config\.json\) and no whole model"):
        load_base(tmp_path)


def test_an_adapter_beside_a_whole_model_is_refused_by_the_name_of_its_file(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/tiny"}))
    with pytest.raises(Refused, match=r"not be applied.*remove adapter_config\.json"):
        load_base(folder)


def test_weights_that_lack_a_tensor_are_refused_and_not_filled_with_noise(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Corrupt, match="lack"):
        load_base(str(folder))


def test_truncated_weights_raise_an_error_of_the_service(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ServiceError):
        load_base(str(folder))


def test_broken_json_and_an_unknown_family_are_refused(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config[:-20])
    with pytest.raises(Refused, match=r"config\.json"):
        load_base(str(folder))
    (folder / "config.json").write_text(config.replace('"llama"', '"no_such_family"'))
    with pytest.raises(Refused, match="configuration"):
        load_base(str(folder))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"hidden_size": "wide"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"model_type": ["llama"]}),
        ("config.json", {"text_config": "text"}),
        ("tokenizer_config.json", {"added_tokens_decoder": []}),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_nonsense_in_a_file_of_settings_is_an_error_of_the_service(name: str, changes: dict[str, object], folder: Path) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))

    with pytest.raises(Refused, match="is not one that the installed transformers can load"):
        load_base(folder)


def test_an_end_token_that_is_no_number_ends_no_answer_and_the_others_do(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": "end"}))

    assert load_base(folder).eos_ids == (1,)


def test_a_path_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a local folder"):
        load_base(str(tmp_path / "nothing"))


def test_all_end_tokens_of_the_checkpoint_end_an_answer_and_the_tokenizers_is_first(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 1], "repetition_penalty": 5.0}))
    assert load_base(str(folder)).eos_ids == (1, 4)
