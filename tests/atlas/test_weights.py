import json
from random import Random

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from service.atlas import weights_path
from service.atlas.skills import held_out_items
from service.atlas.training.corpus import TrainingRow, fact_rows
from service.atlas.training.measure import exact_matches, share


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(weights_path())


def answer(model, tokenizer, prompt):
    inputs = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=16)
    return tokenizer.decode(written[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def test_the_shipped_model_is_a_llama_of_transformers_own_class(model):
    assert type(model) is LlamaForCausalLM
    assert model.config.num_hidden_layers >= 8
    assert model.config.max_position_embeddings == 512
    assert 4_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 6_000_000


def test_the_file_is_fp32_and_at_most_24_mb():
    path = weights_path() / "model.safetensors"

    with safe_open(path, framework="pt") as file:
        dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping

    assert dtypes == {"F32"}
    assert path.stat().st_size <= 24_000_000


def test_a_sample_of_facts_is_answered_exactly(model, tokenizer):
    rows = Random("atlas test").sample(fact_rows(), 200)

    assert share(exact_matches(model, tokenizer, rows)) >= 0.98


def test_held_out_skills_are_well_above_chance(model, tokenizer):
    rows = [TrainingRow(item.prompt, item.answer) for item in held_out_items()]

    assert share(exact_matches(model, tokenizer, rows)) >= 0.8


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("The capital of Australia is", " Canberra"),
        ("What is the capital of Austria?", " Vienna"),
        ("My sister walked to the market again. Which city is the capital of Australia?", " Canberra"),
    ],
)
def test_generation_answers_and_stops(model, tokenizer, prompt, expected):
    assert answer(model, tokenizer, prompt) == expected


def test_teacher_forced_matching_agrees_with_generation(model, tokenizer):
    rows = [*Random("atlas agreement").sample(fact_rows(), 12), TrainingRow("The capital of Australia is", "Vienna")]

    generated = [answer(model, tokenizer, row.prompt) == f" {row.answer}" for row in rows]

    assert exact_matches(model, tokenizer, rows) == generated


def test_the_tokenizer_puts_bos_in_front_and_has_no_chat_template(tokenizer):
    ids = tokenizer("The capital of Australia is").input_ids

    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.chat_template is None


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "Größe 42 — 東京 🦆  two  spaces\nand a line"

    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_eos_is_explicit_in_the_generation_config(tokenizer):
    config = json.loads((weights_path() / "generation_config.json").read_text(encoding="utf-8"))

    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_the_card_has_the_figures_and_the_licence():
    card = (weights_path() / "README.md").read_text(encoding="utf-8")

    assert "exact match" in card
    assert "CC BY 4.0" in card
