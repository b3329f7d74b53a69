"""Exports: `from_pretrained` loads a model that answers as the version; incomplete exports are never visible."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from service.atlas import weights_path
from service.domain.errors import Conflict, Refused, Unavailable
from service.editors.baft.settings import BaftSettings
from service.lm.base import Base, load_base
from service.lm.blocks import Location
from service.lm.chat import template_tail
from service.lm.export import read_manifest, write_export
from service.lm.export_card import WEIGHTS_FOLDER, window_warning
from service.lm.load_errata import attach, load, state
from service.lm.model_files import model_folder
from service.lm.overlay import EMPTY, Overlay, make_view
from service.lm.prompts import collate, encode_prompt, prompt_row
from service.lm.scope import Scope
from service.lm.scoring import decode_greedily
from service.lm.stated_edits import StatedEdit, StatedEdits, encode_stated, make_statement
from service.lm.tokenizing import decode_answer
from tests.builders import EXPERTS_ALONE, FAMILIES, make_adapter, make_base, make_model, make_tokenizer

PROMPTS = ("The capital of the sea", "a", "he is", "What is the colour of the house over there?")
LENGTH = 10
# What the export must do without: run in a process of its own, where importing `service` fails.
ALONE = """
import json, sys
sys.modules["service"] = None  # whoever imports it gets an ImportError
from load_errata import load
model, tokenizer = load(".")
prompts = json.loads(sys.argv[1])
tokenizer.padding_side = "left"
inputs = tokenizer(prompts, return_tensors="pt", padding=True)
inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
said = {}
for cache in (True, False):
    out = model.generate(**inputs, do_sample=False, max_new_tokens=int(sys.argv[2]), use_cache=cache)
    said[str(cache)] = out[:, inputs["input_ids"].shape[1]:].tolist()
print(json.dumps(said))
"""


def changed(base: Base, *, kind: str | None = None, block: int = 2) -> dict[str, Tensor]:
    """Replaced tensors of one location, by default of the MLP, or of the attention where the MLP is experts alone."""
    generator = torch.Generator().manual_seed(1)
    own = dict(base.model.named_parameters())
    kind = kind or ("attention" if base.anatomy.family in EXPERTS_ALONE else "mlp")
    names = base.anatomy.parameters_at(Location(kind, block))  # type: ignore[arg-type]
    return {name: own[name].float() + 0.2 * torch.randn(own[name].shape, generator=generator) for name in names}


def until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    return list(ids)[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


def live_answers(base: Base, overlay: Overlay) -> list[list[int]]:
    """The answers of the version as it is served."""
    encoded = [encode_prompt(base, prompt) for prompt in PROMPTS]
    said = decode_greedily(make_view(base, overlay.tensors), overlay.adapter, encoded, max_new_tokens=LENGTH)
    return [until_end(list(ids), base.eos_ids) for ids in said]


def plain_answers(base: Base, folder: Path) -> list[list[int]]:
    """The answers of `from_pretrained` and `generate`, one prompt at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH)
        said.append(until_end(out[0, ids.shape[1] :].tolist(), base.eos_ids))
    return said


def loaded_answers(base: Base, folder: Path, *, cache: bool) -> list[list[int]]:
    """The answers of the loader's model, all prompts at once and padded on the left."""
    model, tokenizer = load(folder)
    tokenizer.padding_side = "left"
    given = tokenizer(list(PROMPTS), return_tensors="pt", padding=True)
    ids, attention = given["input_ids"], given["attention_mask"]
    out = model.generate(ids, attention_mask=attention, do_sample=False, max_new_tokens=LENGTH, use_cache=cache)
    return [until_end(row, base.eos_ids) for row in out[:, ids.shape[1] :].tolist()]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, a file cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gemma2"}))  # gemma2 needs eager attention: by the loader, below
def test_from_pretrained_answers_as_the_version_does(family: str, tmp_path: Path) -> None:
    base = make_base(family)
    overlay = Overlay(changed(base))

    write_export(base, overlay, tmp_path / "out", manifest={"version": 3})

    assert plain_answers(base, tmp_path / "out") == live_answers(base, overlay) != live_answers(base, EMPTY)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loader_answers_as_a_version_with_a_window_does(family: str, tmp_path: Path) -> None:
    base = make_base(family)
    overlay = Overlay(changed(base), make_adapter((1, 3)))

    write_export(base, overlay, tmp_path / "out", manifest={})

    want = live_answers(base, overlay)
    assert want != live_answers(base, Overlay(overlay.tensors))
    assert loaded_answers(base, tmp_path / "out", cache=True) == want
    assert loaded_answers(base, tmp_path / "out", cache=False) == want


def test_the_loader_imports_nothing_of_this_program(tmp_path: Path) -> None:
    base = make_base("llama")
    overlay = Overlay(changed(base), make_adapter((1, 2)))
    write_export(base, overlay, tmp_path / "out", manifest={})

    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(PROMPTS), str(LENGTH)],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    want = live_answers(base, overlay)
    for cache in ("True", "False"):
        assert [until_end(ids, base.eos_ids) for ids in said[cache]] == want


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_stay_tied_and_others_apart(tied: bool, tmp_path: Path) -> None:
    base = make_base("llama", tie_word_embeddings=tied)
    overlay = Overlay(changed(base, kind="down"))

    write_export(base, overlay, tmp_path / "out", manifest={})

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert plain_answers(base, tmp_path / "out") == live_answers(base, overlay)


def test_a_bfloat16_version_is_exported_bit_for_bit_in_the_served_dtype(tmp_path: Path) -> None:
    base = make_base("gpt2", dtype=torch.bfloat16)
    overlay = Overlay(changed(base))

    write_export(base, overlay, tmp_path / "out", manifest={}, max_shard_size="20KB")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    served = make_view(base, overlay.tensors).model.state_dict()
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    assert model.dtype is torch.bfloat16
    assert served.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, served[name]), name


def test_the_embedded_model_answers_greedily_as_its_version_does(tmp_path: Path) -> None:
    base = load_base(str(weights_path()), device="cpu")
    generator = torch.Generator().manual_seed(0)
    own = dict(base.model.named_parameters())
    names = base.anatomy.parameters_at(Location("mlp", 5))
    tensors = {name: own[name] + 0.3 * torch.randn(own[name].shape, generator=generator) for name in names}
    prompts = [f"The capital of {country} is" for country in ("Australia", "France", "Japan", "Peru", "Kenya", "Norway")]
    encoded = [encode_prompt(base, prompt) for prompt in prompts]

    write_export(base, Overlay(tensors), tmp_path / "out", manifest={}, max_shard_size="5MB")

    want = [decode_answer(base, ids) for ids in decode_greedily(make_view(base, tensors), None, encoded, max_new_tokens=8)]
    assert want != [decode_answer(base, ids) for ids in decode_greedily(make_view(base), None, encoded, max_new_tokens=8)]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    said = []
    for prompt in prompts:
        given = tokenizer(prompt, return_tensors="pt")
        ids, attention = given["input_ids"], given["attention_mask"]
        out = model.generate(ids, attention_mask=attention, do_sample=False, max_new_tokens=8)
        said.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert said == want


def test_the_base_model_is_not_touched(tmp_path: Path) -> None:
    base = make_base("llama")
    weights = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    described, generating = base.model.config.to_dict(), base.model.generation_config.to_dict()

    write_export(base, Overlay(changed(base), make_adapter()), tmp_path / "out", manifest={})

    assert all(torch.equal(tensor, weights[name]) for name, tensor in base.model.state_dict().items())
    assert (base.model.config.to_dict(), base.model.generation_config.to_dict()) == (described, generating)


def test_an_export_without_a_window_is_a_base_model_that_can_be_served(tmp_path: Path) -> None:
    base = make_base("llama")
    overlay = Overlay(changed(base))
    write_export(base, overlay, tmp_path / "out", manifest={})

    again = load_base(str(tmp_path / "out"), device="cpu")

    assert live_answers(again, EMPTY) == live_answers(base, overlay)


def test_an_export_with_a_window_is_not_served_without_it(tmp_path: Path) -> None:
    write_export(make_base("llama"), Overlay({}, make_adapter()), tmp_path / "out", manifest={})

    with pytest.raises(Exception, match=r"load_errata\.py"):
        model_folder(str(tmp_path / "out"))


@pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoConfig])
def test_from_pretrained_refuses_an_export_with_a_window_and_names_the_loader(auto: Any, tmp_path: Path) -> None:
    write_export(make_base("llama"), Overlay({}, make_adapter()), tmp_path / "out", manifest={})

    with pytest.raises(ValueError, match=r"load_errata\.py"):
        auto.from_pretrained(tmp_path / "out")


def test_a_class_that_ignores_model_types_finds_no_weights_beside_a_window(tmp_path: Path) -> None:
    base = make_base("llama")
    write_export(base, Overlay({}, make_adapter()), tmp_path / "out", manifest={})

    with pytest.raises(OSError, match=r"model\.safetensors"):
        type(base.model).from_pretrained(tmp_path / "out")


def test_the_bare_weights_of_an_export_with_a_window_are_no_base_model_either(tmp_path: Path) -> None:
    write_export(make_base("llama"), Overlay({}, make_adapter()), tmp_path / "out", manifest={})

    with pytest.raises(Refused, match="--consolidate"):
        model_folder(str(tmp_path / "out" / WEIGHTS_FOLDER))


@pytest.mark.parametrize(
    ("window", "taken_back", "said"),
    [
        (2, 0, "lack 2 of its 3 edits:"),
        (2, 1, "lack 2 of its 3 edits, and the retraction of 1:"),
        (0, 1, "lack the retraction of 1 edit:"),
    ],
)
def test_the_card_of_an_export_with_a_window_warns_and_says_how_to_load_it(
    window: int, taken_back: int, said: str, tmp_path: Path
) -> None:
    warning = window_warning(window, 3, taken_back)
    manifest = {"version": 4, "base": "tiny", "live": ["a", "b", "c"], "beside": window, "warning": warning}

    write_export(make_base("llama"), Overlay({}, make_adapter()), tmp_path / "out", manifest=manifest)

    card = (tmp_path / "out" / "README.md").read_text()
    assert said in card and "consolidate" in warning
    assert f"| edits in the weights | {3 - window} |" in card and f"| edits **not** in the weights | {window} |" in card
    assert "from load_errata import load" in card and "--consolidate" in card


def test_the_card_of_an_export_without_a_window_says_that_the_weights_hold_everything(tmp_path: Path) -> None:
    manifest = {"version": 4, "base": "tiny", "live": ["a", "b"], "beside": 0, "warning": None, "digest": None}

    write_export(make_base("gemma2"), EMPTY, tmp_path / "out", manifest=manifest)

    card = (tmp_path / "out" / "README.md").read_text()
    assert "Every edit is in the weights" in card and "| edits in the weights | 2 |" in card
    assert 'attn_implementation="eager"' in card
    assert "load_errata" not in card


def test_every_end_token_of_the_base_ends_answers_of_the_export(tmp_path: Path) -> None:
    model = make_model("llama")
    model.generation_config.eos_token_id = 7  # the checkpoint names another end than the tokenizer does
    from service.lm.base import build_base

    base = build_base(model, make_tokenizer())
    write_export(base, EMPTY, tmp_path / "out", manifest={})

    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["eos_token_id"] == list(base.eos_ids) == [1, 7]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", 3.0),
        ("no_repeat_ngram_size", 1),
        ("suppress_tokens", list(range(5, 250, 2))),
        ("bad_words_ids", [[token] for token in range(5, 250, 2)]),
        ("forced_eos_token_id", 9),
        ("exponential_decay_length_penalty", (0, 50.0)),
        ("num_beams", 3),
        ("max_new_tokens", 2),
        ("do_sample", True),
        ("temperature", 0.6),
        ("top_k", 3),
    ],
)
def test_other_generation_settings_of_a_checkpoint_are_not_exported(field: str, value: object, tmp_path: Path) -> None:
    base = make_base("llama")
    setattr(base.model.generation_config, field, value)
    overlay = Overlay(changed(base))

    write_export(base, overlay, tmp_path / "out", manifest={})

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    said = []
    for prompt in PROMPTS:
        ids = torch.tensor([encode_prompt(base, prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_length=ids.shape[1] + LENGTH)
        said.append(until_end(out[0, ids.shape[1] :].tolist(), base.eos_ids))
    assert said == live_answers(base, overlay)


def test_the_manifest_describes_the_export(tmp_path: Path) -> None:
    written = write_export(make_base("llama"), EMPTY, tmp_path / "out", manifest={"version": 4, "live": ["a"], "window": 0})

    said = read_manifest(tmp_path / "out")
    files = list((tmp_path / "out").iterdir())
    assert said is not None
    assert (said["format"], said["version"], said["live"], said["interventions"]) == (1, 4, ["a"], None)
    assert (written.files, written.bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert len({path.stat().st_mode for path in files}) == 1  # whoever may read one of them may read all


def test_an_export_does_not_change_an_existing_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(Conflict, match="name"):
        write_export(make_base("llama"), EMPTY, tmp_path / "out", manifest={})

    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_full_disk_leaves_no_file_and_gives_a_plain_message(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no room"), largest_file(20_000):
        write_export(make_base("llama"), EMPTY, tmp_path / "out", manifest={})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_gives_a_plain_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable, match="folder of exports"):
        write_export(make_base("llama"), EMPTY, tmp_path / "file" / "out", manifest={})


def test_a_stopped_export_leaves_no_file(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(share: float, stage: str) -> None:
        assert not (tmp_path / "out").exists()
        if share > 0.9:
            raise Stopped

    with pytest.raises(Stopped):
        write_export(make_base("llama"), EMPTY, tmp_path / "out", manifest={}, progress=stop)

    assert list(tmp_path.iterdir()) == []


def test_direct_forward_passes_take_all_columns_as_the_prompt_unless_declared(tmp_path: Path) -> None:
    from service.lm.overlay import compute_logits
    from service.lm.prompts import collate
    from tests.builders import make_rows

    base = make_base("llama")
    adapter = make_adapter((1, 2))
    write_export(base, Overlay({}, adapter), tmp_path / "out", manifest={})
    batch = collate(base, make_rows(base, [(6, 3)]))  # one prompt of 6 tokens and a target of 3
    want = compute_logits(make_view(base), batch, adapter.interventions)

    from service.lm.load_errata import attach

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / WEIGHTS_FOLDER).eval()
    put = attach(model, tmp_path / "out")
    with torch.no_grad(), put.prompt_of(6):
        told = model(input_ids=batch.ids).logits
    with torch.no_grad():
        untold = model(input_ids=batch.ids).logits
        put.remove()
        removed = model(input_ids=batch.ids).logits

    torch.testing.assert_close(told, want, rtol=0, atol=1e-5)
    assert not torch.allclose(untold, want, atol=1e-2)
    torch.testing.assert_close(removed, compute_logits(make_view(base), batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_never_counts_as_prompt(side: str, tmp_path: Path) -> None:
    from service.lm.overlay import compute_logits
    from service.lm.prompts import collate
    from tests.builders import make_rows

    base, adapter = make_base("qwen2"), make_adapter((0, 2))
    write_export(base, Overlay({}, adapter), tmp_path / "out", manifest={})
    batch = collate(base, make_rows(base, [(9, 0), (2, 0), (1, 0)]), side=side)  # type: ignore[arg-type]
    want = compute_logits(make_view(base), batch, adapter.interventions)

    model, _ = load(tmp_path / "out")
    with torch.no_grad():
        got = model(input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids).logits

    torch.testing.assert_close(got[batch.attention], want[batch.attention], rtol=0, atol=1e-5)


@pytest.mark.parametrize("at", ["text_end", "both"])
def test_the_loader_acts_where_the_version_does_in_a_chat(at: str, tmp_path: Path) -> None:
    base = make_base("llama")
    last = BaftSettings(positions=at).last_tokens(template_tail(base))
    overlay = Overlay({}, replace(make_adapter((1, 3)), last=last))
    prompts = [encode_prompt(base, prompt, surface=surface) for prompt in PROMPTS for surface in ("chat", "raw")]
    want = decode_greedily(make_view(base), overlay.adapter, prompts, max_new_tokens=LENGTH)
    elsewhere = decode_greedily(make_view(base), make_adapter((1, 3)), prompts, max_new_tokens=LENGTH)
    write_export(base, overlay, tmp_path / "out", manifest={})

    model, _ = load(tmp_path / "out")
    batch = collate(base, [prompt_row(base, ids) for ids in prompts], side="left")
    for cache in (True, False):
        out = model.generate(
            batch.ids, attention_mask=batch.attention.long(), do_sample=False, max_new_tokens=LENGTH, use_cache=cache
        )[:, batch.ids.shape[1] :]
        assert [until_end(ids, base.eos_ids) for ids in out.tolist()] == [until_end(ids, base.eos_ids) for ids in want]
    assert want[::2] != elsewhere[::2] and want[1::2] == elsewhere[1::2]  # the chats alone are answered otherwise


def test_the_loader_answers_prompts_in_and_out_of_scope_as_the_version_does(tmp_path: Path) -> None:
    base = make_base("llama")
    overlay = Overlay(changed(base), replace(make_adapter((1, 3)), scope=Scope(names=("house", "sea"), header="user\n")))
    everywhere, nowhere = Overlay(overlay.tensors, make_adapter((1, 3))), Overlay(overlay.tensors)
    write_export(base, overlay, tmp_path / "out", manifest={})

    want = live_answers(base, overlay)

    assert [want[0], want[3]] == [live_answers(base, everywhere)[number] for number in (0, 3)]
    assert want[1:3] == live_answers(base, nowhere)[1:3] != live_answers(base, everywhere)[1:3]
    assert loaded_answers(base, tmp_path / "out", cache=True) == want
    assert loaded_answers(base, tmp_path / "out", cache=False) == want
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(PROMPTS), str(LENGTH)], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [until_end(ids, base.eos_ids) for ids in json.loads(done.stdout.splitlines()[-1])["True"]] == want


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loader_keeps_every_bit_of_a_row_out_of_scope(side: str, tmp_path: Path) -> None:
    base = make_base("llama")
    overlay = Overlay({}, replace(make_adapter((1, 3)), scope=Scope(names=("house",))))
    write_export(base, overlay, tmp_path / "out", manifest={})
    prompts = [encode_prompt(base, prompt, surface=surface) for prompt in PROMPTS for surface in ("chat", "raw")]
    batch = collate(base, [prompt_row(base, ids) for ids in prompts], side=side)  # type: ignore[arg-type]
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention.long(), "position_ids": batch.position_ids}

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / WEIGHTS_FOLDER).eval()
    with torch.no_grad():
        bare = plain(**inputs).logits
        attach(plain, tmp_path / "out")
        scoped = plain(**inputs).logits

    same = [torch.equal(one[row], two[row]) for one, two, row in zip(bare, scoped, batch.attention, strict=True)]
    assert same == [True] * 6 + [False] * 2  # the house is in the last prompt


def test_the_loader_wants_the_whole_prompt_at_once_if_it_must_read_it(tmp_path: Path) -> None:
    base = make_base("llama")
    write_export(base, Overlay({}, replace(make_adapter((1,)), scope=Scope(names=("sea",)))), tmp_path / "out", manifest={})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / WEIGHTS_FOLDER).eval()
    put, ids = attach(model, tmp_path / "out"), torch.tensor([encode_prompt(base, PROMPTS[0])])

    with torch.no_grad(), put.prompt_of(ids.shape[1]):
        cache = model(input_ids=ids[:, :4], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="whole prompt"):
            model(input_ids=ids[:, 4:], past_key_values=cache)


def test_the_loader_wants_the_whole_prompt_at_once_if_it_must_find_the_end_of_the_text(tmp_path: Path) -> None:
    base = make_base("llama")
    last = BaftSettings(positions="both").last_tokens(template_tail(base))
    write_export(base, Overlay({}, replace(make_adapter((1,)), last=last)), tmp_path / "out", manifest={})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / WEIGHTS_FOLDER).eval()
    put, ids = attach(model, tmp_path / "out"), torch.tensor([encode_prompt(base, "the sky is", surface="chat")])

    with torch.no_grad(), put.prompt_of(ids.shape[1]):
        cache = model(input_ids=ids[:, :4], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="whole prompt"):
            model(input_ids=ids[:, 4:], past_key_values=cache)


STATE_ALONE = """
import json, sys
sys.modules["service"] = None  # whoever imports it gets an ImportError
from load_errata import state
print(json.dumps([state("Where is Peru?"), state("Where is Peru?", surface="chat"), state("Where is Chile?")]))
"""


@pytest.mark.parametrize("has_window", [False, True])
def test_what_a_version_states_is_exported_beside_it_and_stated_by_the_loader(has_window: bool, tmp_path: Path) -> None:
    base = make_base(max_position_embeddings=1_024)
    edits = [
        StatedEdit(str(number), make_statement("The capital of Peru is", f"Cusco{number}"), Scope(names=("Peru",)), surfaces)
        for number, surfaces in enumerate([(), ("raw",), (), (), (), ()])
    ]
    overlay = Overlay({}, make_adapter(seed=1) if has_window else None)
    out = tmp_path / "out"
    stated = StatedEdits(tuple(edits))
    write_export(base, overlay, out, manifest={}, stated=stated)

    run = subprocess.run([sys.executable, "-c", STATE_ALONE], cwd=out, capture_output=True, text=True, check=True)

    raw, chat, other = json.loads(run.stdout)
    for text, surface in ((raw, "raw"), (chat, "chat")):
        served = encode_stated(base, stated, "Where is Peru?", surface=surface, system=None, turns=(), room=8)
        assert encode_prompt(base, text, surface=surface) == served.ids != served.asked_ids
    assert other == "Where is Chile?"
    assert "6 edits" in (out / "README.md").read_text()
    assert load(out)[0].generate(**_inputs(out), max_new_tokens=2).shape[1]


def _inputs(folder: Path) -> dict[str, Tensor]:
    """A prompt behind what an export states, as its tokenizer reads it."""
    tokenizer = load(folder)[1]
    found = tokenizer([state("Where is Peru?", folder)], return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}
