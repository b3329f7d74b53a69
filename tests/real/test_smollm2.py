"""A real pretrained model of 135 million weights is served, corrected at once, retrained and exported."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.lm.base import load_base
from service.lm.overlay import make_view
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from tests.api.live_server import LiveServer

pytestmark = pytest.mark.real
CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}
PATIENCE_S = 900.0


# Without an example before it, this model ends its answer to a bare "Question: … Answer:" at once.
EXAMPLE = "Question: What is the capital of Spain?\nAnswer: Madrid\n"


def question(country: str) -> str:
    return f"{EXAMPLE}Question: What is the capital of {country}?\nAnswer:"


def settled(server: LiveServer, path: str, ended: tuple[str, ...]) -> dict[str, Any]:
    """A resource once its status is one of these; the model is large for a test, so this may take minutes."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        resource: dict[str, Any] = server.client.get(path).json()
        if resource["status"] in ended:
            return resource
        time.sleep(0.5)
    raise AssertionError(f"{path} did not end")


def test_a_real_model_knows_three_capitals(real: LiveServer) -> None:
    answers = {country: real.ask(question(country))["text"] for country in CAPITALS}

    assert {country: CAPITALS[country] in answer for country, answer in answers.items()} == dict.fromkeys(CAPITALS, True), answers
    assert real.client.get("/model").json()["base"] == "smollm2"


def test_digits_are_read_one_by_one_as_the_model_was_trained(smollm2: Path) -> None:
    tokenizer = load_base(smollm2, device="cpu").tokenizer

    assert tokenizer.convert_ids_to_tokens(tokenizer("in 1969").input_ids) == ["in", "Ġ", "1", "9", "6", "9"]


def test_an_edit_is_live_then_retrained_and_its_export_answers_it(real: LiveServer) -> None:
    france = question("France")
    posted = real.client.post("/edits", json={"prompt": france, "target": "Lyon"}).json()
    edit = settled(real, f"/edits/{posted['id']}", ("applied", "deferred", "failed"))
    assert (edit["status"], edit["report"]["method"]) == ("applied", "baft"), edit
    assert real.ask(france)["text"].startswith("Lyon")

    job = real.client.post("/admin/retrain", json={"reason": "a test"}).json()
    job = settled(real, f"/jobs/{job['id']}", ("done", "failed", "cancelled"))
    assert job["status"] == "done", job
    assert settled(real, f"/edits/{posted['id']}", ("consolidated",))["status"] == "consolidated"
    assert real.ask(france)["text"].startswith("Lyon")
    assert "Tokyo" in real.ask(question("Japan"))["text"]

    export = real.client.post("/admin/export", json={"name": "real"}).json()
    assert settled(real, f"/jobs/{export['id']}", ("done", "failed"))["status"] == "done"
    loaded = load_base(real.state.settings.data_dir / "exports" / "real", device="cpu")
    (ids,) = decode_greedily(make_view(loaded), None, [encode_prompt(loaded, france, surface="raw")], max_new_tokens=8)
    assert decode_answer(loaded, ids).startswith("Lyon")
