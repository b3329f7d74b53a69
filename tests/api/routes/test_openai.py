"""The OpenAI API over a real port, by its official client: what it asks is answered by the version that its model names."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from service.lm.overlay import EMPTY
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_ids
from service.serving.answer_stream import AnswerStream
from service.serving.request import Generation
from tests.api.live_server import LiveServer

PROMPT = "The colour of the sea is"
CHAT = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    """The official client. The server has one edit, which is version 1."""
    server.edit(PROMPT, "green")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def name(client: openai.OpenAI) -> str:
    """The model's name."""
    return client.models.list().data[0].id


def test_the_models_are_the_head_the_base_and_every_version_that_is_kept(client: openai.OpenAI, name: str) -> None:
    listed = {model.id: model.version for model in client.models.list()}  # type: ignore[attr-defined]

    assert listed == {name: 1, f"{name}@head": 1, f"{name}@base": 0, f"{name}@v1": 1, f"{name}@v0": 0}
    assert client.models.retrieve(f"{name}@v1").model_dump()["version"] == 1


@pytest.mark.parametrize("suffix", ["", "@head", "@v1"])
def test_a_completion_is_what_the_version_says(client: openai.OpenAI, server: LiveServer, name: str, suffix: str) -> None:
    said = client.completions.create(model=name + suffix, prompt=PROMPT, temperature=0)

    assert said.choices[0].text == " green"
    assert (said.choices[0].finish_reason, said.model, said.object) == ("stop", f"{name}@v1", "text_completion")
    assert said.usage is not None
    assert said.usage.prompt_tokens == server.ask(PROMPT)["prompt_tokens"]
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


def test_the_base_answers_under_its_name_and_has_another_fingerprint(
    client: openai.OpenAI, server: LiveServer, name: str
) -> None:
    edited, base = (client.completions.create(model=f"{name}@{which}", prompt=PROMPT, temperature=0) for which in ("v1", "base"))

    assert base.choices[0].text.lstrip() == server.ask(PROMPT, version="base", max_new_tokens=16)["text"]
    assert base.choices[0].text != edited.choices[0].text
    assert base.system_fingerprint != edited.system_fingerprint
    again = client.completions.create(model=f"{name}@base", prompt="another", temperature=0)
    assert again.system_fingerprint == base.system_fingerprint


def test_several_prompts_with_several_choices_each_are_answered_in_order(client: openai.OpenAI, name: str) -> None:
    prompts = [PROMPT, "x", "yz"]

    together = client.completions.create(model=name, prompt=prompts, n=2, seed=5, max_tokens=6)

    alone = [client.completions.create(model=name, prompt=prompt, n=2, seed=5, max_tokens=6) for prompt in prompts]
    assert [choice.index for choice in together.choices] == list(range(6))
    assert [choice.text for choice in together.choices] == [choice.text for one in alone for choice in one.choices]
    assert together.usage is not None
    assert together.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone if one.usage)
    once = client.completions.create(model=name, prompt=prompts, max_tokens=1).usage
    assert once is not None and once.prompt_tokens == together.usage.prompt_tokens, "a prompt counts once for all its choices"


def test_a_seed_repeats_an_answer_and_each_of_several_choices_has_its_own(client: openai.OpenAI, name: str) -> None:
    def texts(seed: int, count: int) -> list[str]:
        said = client.completions.create(model=f"{name}@base", prompt="x", seed=seed, n=count, max_tokens=12)
        return [choice.text for choice in said.choices]

    three = texts(11, 3)
    assert texts(11, 3) == three
    assert texts(12, 1) == three[1:2]
    assert len(set(three)) == 3


def test_a_prompt_in_tokens_is_asked_as_it_is(client: openai.OpenAI, server: LiveServer, name: str) -> None:
    base = server.state.base
    ids = [base.bos_id or 0, *range(60, 80)]

    said = client.completions.create(model=f"{name}@base", prompt=ids, temperature=0, max_tokens=5)

    (expected,) = decode_greedily(server.state.serving.view_of(EMPTY), None, [tuple(ids)], max_new_tokens=5)
    assert said.choices[0].text == decode_ids(base, expected)


def test_the_pieces_of_a_stream_are_the_whole_answer(client: openai.OpenAI, name: str) -> None:
    whole = client.completions.create(model=f"{name}@base", prompt="x", temperature=0, max_tokens=12, echo=True)

    options = {"include_usage": True}
    asked: dict[str, Any] = {"model": f"{name}@base", "prompt": "x", "temperature": 0, "max_tokens": 12, "echo": True}
    pieces = list(client.completions.create(**asked, stream=True, stream_options=options))

    texts, last = pieces[:-1], pieces[-1]
    assert "".join(piece.choices[0].text for piece in texts) == whole.choices[0].text
    assert [piece.choices[0].finish_reason for piece in texts] == [*[None] * (len(texts) - 1), whole.choices[0].finish_reason]
    assert len(texts) > 3, "it came at once"
    assert (last.choices, last.usage) == ([], whole.usage)
    assert {piece.id for piece in pieces} == {pieces[0].id}


def test_a_chat_is_what_the_version_says_in_it_whole_and_in_pieces(client: openai.OpenAI, server: LiveServer, name: str) -> None:
    whole = client.chat.completions.create(model=name, messages=CHAT, temperature=0, max_tokens=12)  # type: ignore[arg-type]

    pieces = list(client.chat.completions.create(model=name, messages=CHAT, temperature=0, max_tokens=12, stream=True))  # type: ignore[call-overload]

    assert whole.choices[0].message.role == "assistant"
    text = whole.choices[0].message.content
    assert text is not None and text.strip() == server.ask(PROMPT, surface="chat", max_new_tokens=12)["text"]
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_earlier_turns_and_the_system_s_text_are_read(client: openai.OpenAI, server: LiveServer, name: str) -> None:
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "more."}]
    messages: Any = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": parts},
    ]

    said = client.chat.completions.create(model=f"{name}@base", messages=messages, temperature=0, max_completion_tokens=8)

    turns = [{"user": "Hello", "assistant": "Hi."}]
    same = server.ask("Say more.", surface="chat", system="Be short.", turns=turns, version="base")
    assert said.choices[0].message.content is not None
    assert said.choices[0].message.content.lstrip() == same["text"]
    assert said.usage is not None and said.usage.prompt_tokens == same["prompt_tokens"]


def test_probabilities_are_those_of_the_model_whatever_the_temperature(client: openai.OpenAI, name: str) -> None:
    asked: dict[str, Any] = {"model": f"{name}@base", "prompt": "x", "max_tokens": 6, "logprobs": 3}
    cold = client.completions.create(**asked, temperature=0).choices[0].logprobs
    warm = client.completions.create(**asked, temperature=2, seed=1).choices[0].logprobs
    streamed = list(client.completions.create(**asked, temperature=0, stream=True))

    assert cold is not None and warm is not None
    assert cold.token_logprobs and cold.top_logprobs and warm.top_logprobs and cold.tokens
    for token, logprob, top in zip(cold.tokens, cold.token_logprobs, cold.top_logprobs, strict=True):
        assert logprob == max(top.values()) and token in top, "the greedy token is the likeliest one"
    assert warm.top_logprobs[0] == cold.top_logprobs[0]
    told = [piece.choices[0].logprobs for piece in streamed]
    assert [value for each in told if each for value in each.token_logprobs or ()] == cold.token_logprobs
    assert cold.text_offset == [sum(len(token) for token in cold.tokens[:place]) for place in range(len(cold.tokens))]


def test_the_probabilities_of_a_chat_are_told_token_by_token(client: openai.OpenAI, name: str) -> None:
    said = client.chat.completions.create(  # type: ignore[call-overload]
        model=f"{name}@base", messages=CHAT, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2
    )

    content = said.choices[0].logprobs.content
    assert "".join(token.token for token in content) == said.choices[0].message.content
    assert all(len(token.top_logprobs) == 2 and token.logprob == token.top_logprobs[0].logprob for token in content)


def test_an_answer_ends_before_a_stop_string(client: openai.OpenAI, name: str) -> None:
    said = client.completions.create(model=name, prompt=PROMPT, temperature=0, stop=["ee", "n"])

    assert (said.choices[0].text, said.choices[0].finish_reason) == (" gr", "stop")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"best_of": 3}, "best_of"),
    ({"suffix": "end"}, "suffix"),
    ({"n": 9}, "n"),
    ({"prompt": ["x"] * 17, "n": 2}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"echo": True, "logprobs": 1}, "echo"),
    ({"extra_body": {"guided_json": {}}}, "guided_json"),
    ({"prompt": [2**32]}, "prompt"),
    ({"prompt": [[5], [10**12]]}, "prompt"),
    ({"prompt": [320], "echo": True}, "prompt"),
    ({"extra_body": {"stop": [""]}}, "stop[0]"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
]


@pytest.mark.parametrize(("more", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_is_not_done_is_refused_by_its_name(client: openai.OpenAI, name: str, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": name, "prompt": "x", **more})

    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_an_answer_s_message_is_taken_as_an_earlier_turn(client: openai.OpenAI, server: LiveServer, name: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    first = (
        client.chat.completions.create(model=f"{name}@base", messages=messages, temperature=0, max_tokens=4).choices[0].message
    )
    messages += [first, {"role": "user", "content": "And?"}]

    said = client.chat.completions.create(model=f"{name}@base", messages=messages, temperature=0, max_tokens=4)

    turns = [{"user": "Hello", "assistant": first.content}]
    same = server.ask("And?", surface="chat", turns=turns, version="base", max_new_tokens=4)
    assert said.usage is not None and said.usage.prompt_tokens == same["prompt_tokens"]


def test_a_field_of_a_message_that_is_not_read_is_refused_by_its_name(client: openai.OpenAI, name: str) -> None:
    messages: Any = [{"role": "user", "content": "x", "name": "ann"}]

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=name, messages=messages)

    assert refused.value.param == "messages[0].name"


def test_parameters_that_ask_for_nothing_else_are_taken(client: openai.OpenAI, name: str) -> None:
    neutral: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 1, "user": "ann"}

    said = client.completions.create(
        model=name,
        prompt=PROMPT,
        temperature=0,
        **neutral,
        extra_body={"top_k": -1, "repetition_penalty": 1.0, "verbosity": None, "tool_choice": "auto"},
    )

    assert said.choices[0].text == " green"


@pytest.mark.parametrize("model", ["gpt-4", "{}@v99", "{}@vx", "{}@", "@base"])
def test_a_name_of_no_version_is_not_found(client: openai.OpenAI, name: str, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model=model.format(name), prompt="x")

    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    "roles", [["assistant"], ["user", "user"], ["user", "assistant"], ["user", "system", "user"], ["system"]], ids="-".join
)
def test_an_order_of_messages_that_no_template_has_is_refused(client: openai.OpenAI, name: str, roles: list[str]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=name, messages=[{"role": role, "content": "x"} for role in roles])  # type: ignore[misc]

    assert refused.value.param == "messages"


def test_a_conversation_that_the_context_cannot_hold_is_refused_as_too_long(client: openai.OpenAI, name: str) -> None:
    for asked in ({"messages": [{"role": "user", "content": "x" * 500}]}, {"messages": CHAT, "max_tokens": 10_000}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=name, **asked)  # type: ignore[call-overload]
        assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")


def test_every_error_under_v1_has_the_envelope_and_no_other_has(server: LiveServer, client: openai.OpenAI) -> None:
    inside = [
        server.client.get("/v1/nothing"),
        server.client.get("/v1/completions"),
        server.client.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"}),
        server.client.post("/v1/completions", content=b"x"),
        server.client.post("/v1/completions", json={}),
        server.client.post("/v1/completions", json={"model": "x", "prompt": "x" * 2_000_000}),
        server.client.get("/v1/models", headers={"Host": "elsewhere"}),
    ]

    assert [answer.status_code for answer in inside] == [404, 405, 400, 415, 400, 413, 400]
    assert all(answer.json()["error"].keys() == {"message", "type", "param", "code"} for answer in inside)
    assert server.client.get("/nothing").json()["type"].startswith("urn:errata:problem")


def test_a_full_queue_is_said_with_429_and_when_to_try_again(
    server: LiveServer, client: openai.OpenAI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.state.serving, "_queue_limit", 0)

    with pytest.raises(openai.RateLimitError) as full:
        client.completions.create(model=name, prompt="x")

    assert full.value.code == "queue_full"
    assert int(full.value.response.headers["Retry-After"]) >= 1


def test_a_client_that_leaves_a_stream_ends_its_answers(server: LiveServer, client: openai.OpenAI, name: str) -> None:
    submitted: list[AnswerStream] = []
    submit, choose = server.state.serving.submit, AnswerStream.choose

    def note(generation: Generation, *pinned: Any) -> AnswerStream:
        submitted.append(submit(generation, *pinned))
        return submitted[-1]

    def choose_slowly(stream: AnswerStream, *given: Any) -> int:
        time.sleep(0.02)
        return choose(stream, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.state.serving, "submit", note)
        patch.setattr(AnswerStream, "choose", choose_slowly)
        body = {"model": f"{name}@base", "prompt": "x", "max_tokens": 100, "n": 3, "stream": True, "temperature": 1, "seed": 5}
        with httpx.stream("POST", f"http://127.0.0.1:{server.port}/v1/completions", json=body) as response:
            next(response.iter_lines())
        reasons = [stream.result(10).finish_reason for stream in submitted]

    assert "cancelled" in reasons and "length" not in reasons
    assert len(reasons) == 3


def test_what_fails_before_the_first_piece_is_an_error_of_the_request(
    server: LiveServer, client: openai.OpenAI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": name, "prompt": "x", "stream": True}
    monkeypatch.setattr(server.state.serving, "refuse", None)
    monkeypatch.setattr(server.state.serving, "_refused", "The weights are damaged.")

    answer = server.client.post("/v1/completions", json=body)

    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")


def test_the_events_are_those_of_the_protocol(server: LiveServer, client: openai.OpenAI, name: str) -> None:
    body = {"model": name, "prompt": PROMPT, "temperature": 0, "stream": True}

    answer = server.client.post("/v1/completions", json=body)

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["X-Model-Version"] == "1"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all(piece["object"] == "text_completion" and piece["model"] == f"{name}@v1" for piece in pieces)
    assert "usage" not in pieces[0]


def test_the_asynchronous_client_is_served_many_streams_at_once(server: LiveServer, client: openai.OpenAI, name: str) -> None:
    async def read(asynchronous: openai.AsyncOpenAI, which: str) -> str:
        asked: Any = {"model": f"{name}@{which}", "prompt": PROMPT, "temperature": 0, "max_tokens": 8, "stream": True}
        stream = await asynchronous.completions.create(**asked)
        return "".join([piece.choices[0].text async for piece in stream])

    async def read_all() -> list[str]:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as asynchronous:
            return await asyncio.gather(*(read(asynchronous, which) for which in ["v1", "base"] * 8))

    texts = asyncio.run(read_all())

    assert len(set(texts[::2])) == len(set(texts[1::2])) == 1
    assert texts[0] == " green" != texts[1]
