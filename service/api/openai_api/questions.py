"""A request of the OpenAI API as questions to one version: the prompts in ids, each asked as often as answers are wanted."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.api.openai_api.model_names import read_model_name, short_name
from service.api.openai_api.schemas import ChatIn, CompletionIn, Message
from service.api.openai_api.unsupported import check_message, check_unsupported
from service.api.state import ServerState
from service.domain.errors import Refused, TooLong
from service.lm.stated_edits import StatedPrompt, encode_stated
from service.lm.tokenizing import decode_ids
from service.serving.request import Generation
from service.serving.residents import Resident

MOST_ANSWERS = 32  # of one request: a single one must not fill the queue of all
COMPLETION_TOKENS = 16  # of a completion that says nothing about its length, as the OpenAI API has it


@dataclass(frozen=True)
class ChoiceRequest:
    """One generation to be submitted: one of the answers to one prompt. `echo` is the text that stands in front of its answer."""

    generation: Generation
    echo: str = ""


@dataclass(frozen=True)
class ChoiceRequests:
    """The questions of one request, all to one version."""

    resident: Resident
    epoch: int
    asked: tuple[ChoiceRequest, ...]


def read_completion(server: ServerState, body: CompletionIn) -> ChoiceRequests:
    """The questions of a completion. Raises NotFound, Gone or Corrupt for the model, Refused or TooLong for the rest."""
    check_unsupported(body.model_extra or {})
    if body.echo and body.logprobs is not None:
        raise Refused("echo is not supported together with logprobs: the probabilities of a prompt are not told", field="echo")
    if len(body.prompts) * body.choices > MOST_ANSWERS:
        raise Refused(f"n must be small enough that all prompts together have at most {MOST_ANSWERS} answers", field="n")
    resident, epoch = _pin(server, body.model)
    most = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    asked: list[ChoiceRequest] = []
    for prompt in body.prompts:
        encoded = _encode(server, resident, prompt, most)
        _check_room(server, encoded, most)
        asked += _choices(server, body, encoded, most, body.logprobs, echo=_text_of(server, prompt) if body.echo else "")
    return ChoiceRequests(resident, epoch, tuple(asked))


def read_chat(server: ServerState, body: ChatIn) -> ChoiceRequests:
    """The questions of a chat. Raises as `read_completion` does."""
    check_unsupported(body.model_extra or {})
    if body.top_logprobs and not body.logprobs:
        raise Refused("top_logprobs needs logprobs to be true", field="top_logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise Refused("max_tokens and max_completion_tokens must not differ: name one of them", field="max_completion_tokens")
    resident, epoch = _pin(server, body.model)
    system, turns, prompt = read_messages(body.messages)
    most = body.max_completion_tokens or body.max_tokens
    encoded = _named(
        lambda: encode_stated(server.base, resident.stated, prompt, surface="chat", system=system, turns=turns, room=most or 1)
    )
    room = server.base.context_length - len(encoded.ids)
    if most is None:
        most = room
    _check_room(server, encoded, most, field="messages")
    top = (body.top_logprobs or 0) if body.logprobs else None
    return ChoiceRequests(resident, epoch, tuple(_choices(server, body, encoded, most, top)))


def read_messages(messages: Sequence[Message]) -> tuple[str | None, list[tuple[str, str]], str]:
    """The system's text, the earlier turns, and the user's last text. Raises Refused for an order that a template cannot have."""
    for place, message in enumerate(messages):
        check_message(message.model_extra or {}, place)
    roles = ["system" if message.role == "developer" else message.role for message in messages]
    system = messages[0].text if roles[0] == "system" else None
    rest = messages[1:] if system is not None else messages
    wanted = ["user" if place % 2 == 0 else "assistant" for place in range(len(rest))]
    if [message.role for message in rest] != wanted or len(rest) % 2 == 0:
        raise Refused(
            "messages must be a system message or none, then the user's and the assistant's in turn, the last one the user's",
            field="messages",
        )
    turns = [(rest[place].text, rest[place + 1].text) for place in range(0, len(rest) - 1, 2)]
    return system, turns, rest[-1].text


def _pin(server: ServerState, model: str) -> tuple[Resident, int]:
    return server.serving.pin(server.resident(read_model_name(model, short_name(server.base.name))))


def _encode(server: ServerState, resident: Resident, prompt: str | list[int], most: int) -> StatedPrompt:
    """A prompt in ids: a text behind what the version states about it, tokens as they are."""
    if isinstance(prompt, list):
        if max(prompt) >= server.base.id_count:  # before anything decodes them
            raise Refused("the prompt holds a token that the model has no embedding of", field="prompt")
        return StatedPrompt(tuple(prompt), tuple(prompt), "")
    return encode_stated(server.base, resident.stated, prompt, surface="raw", system=None, turns=(), room=most)


def _text_of(server: ServerState, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else decode_ids(server.base, prompt)


def _named(encode: Any) -> StatedPrompt:
    """Encode a conversation; a fault of a text is one of the messages."""
    try:
        encoded: StatedPrompt = encode()
    except TooLong as error:
        raise TooLong(error.message, field="messages") from error
    except Refused as error:
        raise Refused(error.message, field="messages" if error.field != "surface" else "model") from error
    return encoded


def _check_room(server: ServerState, encoded: StatedPrompt, most: int, field: str = "prompt") -> None:
    length, context = len(encoded.asked_ids), server.base.context_length
    if length + most > context or most < 1:
        raise TooLong(f"the {field} with {length} tokens and the answer must together have at most {context}", field=field)


def _choices(
    server: ServerState,
    body: CompletionIn | ChatIn,
    encoded: StatedPrompt,
    most: int,
    top_logprobs: int | None,
    echo: str = "",
) -> list[ChoiceRequest]:
    """The questions of one prompt. With a seed each of several answers has its own: the seed, and those that follow it."""
    generation = Generation(
        prompt_ids=encoded.ids,
        asked_ids=encoded.asked_ids,
        max_new_tokens=most,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=body.stops,
        deadline=time.monotonic() + server.settings.generation.deadline_s,
        keeps_space=True,
        top_logprobs=top_logprobs,
    )
    seeds = [None if body.seed is None else body.seed + number for number in range(body.choices)]
    return [ChoiceRequest(replace(generation, seed=seed, cancelled=threading.Event()), echo) for seed in seeds]
