"""Servers of odd checkpoints: what the published model lacks is refused in a sentence, and nobody else notices."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from transformers.utils import chat_template_utils

from service.lm.prompts import encode_prompt
from service.runtime.open_version import open_version
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.builders import TOKENS, make_larger_tokenizer, make_tokenizer, save_model
from tests.lm.test_prompts import CLOCK_TEMPLATE, MOVED_SYSTEM, LaterClock


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The server of a model whose tokenizer has more tokens than the embedding has rows, the padding token among them."""
    folder = tmp_path_factory.mktemp("larger")
    save_model(folder / "model", vocab_size=TOKENS, pad_token_id=None)
    make_larger_tokenizer().save_pretrained(folder / "model")
    with live_server(tiny_settings(folder / "model", folder / "data")) as running:
        yield running


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The server of a model whose chat template moves the system text into the user's last turn."""
    folder = tmp_path_factory.mktemp("moved")
    save_model(folder / "model")
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.chat_template = MOVED_SYSTEM
    tokenizer.save_pretrained(folder / "model")
    with live_server(tiny_settings(folder / "model", folder / "data")) as running:
        yield running


def test_twelve_prompts_of_twelve_lengths_are_answered_although_padding_has_no_row(larger: LiveServer) -> None:
    def ask(length: int) -> int:
        body = {"prompt": "word " * length, "max_new_tokens": 12, "version": "base"}
        return larger.client.post("/generate", json=body).status_code

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(1, 13))) == [200] * 12


def test_a_text_with_a_token_without_a_row_is_refused_and_others_are_answered(larger: LiveServer) -> None:
    def ask(prompt: str) -> tuple[int, str]:
        response = larger.client.post("/generate", json={"prompt": prompt, "max_new_tokens": 20, "version": "base"})
        return response.status_code, response.json().get("detail", "")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, ["one", "an <extra> word", "three four", "<extra>"] * 2))

    sentence = "The prompt holds a token of the tokenizer that the model has no embedding of."
    assert answers == [(200, ""), (422, sentence), (200, ""), (422, sentence)] * 2


def test_an_edit_with_a_token_without_a_row_is_refused_and_another_edit_is_live(larger: LiveServer) -> None:
    refused = larger.client.post("/edits", json={"prompt": "The sky is", "target": "<extra>"})

    assert refused.status_code == 422
    assert refused.json()["detail"] == "The target holds a token of the tokenizer that the model has no embedding of."
    assert larger.edit("The sky is", "blue")["status"] == "applied"


def test_a_conversation_whose_template_moves_the_system_text_is_answered(moved: LiveServer) -> None:
    body = {"prompt": "And?", "surface": "chat", "system": "Be brief.", "turns": [{"user": "Hello", "assistant": "Yes"}]}

    response = moved.client.post("/generate", json=body | {"max_new_tokens": 4})

    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    messages += [{"role": "assistant", "content": "Yes"}, {"role": "user", "content": "And?"}]
    tokenizer = moved.state.base.tokenizer
    own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert (response.status_code, response.json()["prompt_tokens"]) == (200, len(own))
    assert moved.edit("The sky is", "blue")["status"] == "applied"


def test_a_store_keeps_the_day_that_its_template_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model")
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.chat_template = CLOCK_TEMPLATE
    tokenizer.save_pretrained(tmp_path / "model")
    settings = tiny_settings(tmp_path / "model", tmp_path / "data")

    with live_server(settings) as first:
        made = first.edit("The sky is", "blue")
        created = datetime.fromisoformat(first.client.get("/versions/0").json()["created_at"])
        assert first.state.base.day == created.astimezone(UTC).date()
        ids = encode_prompt(first.state.base, "The sky is", surface="chat")
    monkeypatch.setattr(chat_template_utils, "datetime", LaterClock)
    with live_server(settings) as second:
        assert encode_prompt(second.state.base, "The sky is", surface="chat") == ids
        assert second.ask("The sky is", surface="chat")["text"] == "blue" and made["status"] == "applied"
    with open_version(settings, "head") as (_, view, _):
        assert encode_prompt(view.base, "The sky is", surface="chat") == ids
