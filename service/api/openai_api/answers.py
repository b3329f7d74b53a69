"""Answers of the OpenAI API: choices with their probabilities, usage, and the fingerprint of what computed them."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.api.openai_api.model_names import name_version, short_name
from service.api.openai_api.questions import ChoiceRequests
from service.api.openai_api.schemas import ChatIn, CompletionIn
from service.api.state import ServerState
from service.lm.base import Base, name_of
from service.lm.tokenizing import decode_ids
from service.serving.answer_stream import Answer, TokenLogprobs
from service.serving.request import FinishReason

# An answer that the server or the client ended early is incomplete, as one that came to its length.
FINISH_REASONS: Mapping[FinishReason, str] = {"stop": "stop", "length": "length", "deadline": "length", "cancelled": "length"}


@dataclass(frozen=True)
class OpenaiReply:
    """What all pieces of one reply have in common. `object` is the name of a whole reply."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]) -> dict[str, Any]:
        """The reply as one document."""
        return {**self._common(self.object), "choices": list(choices), "usage": dict(usage)}

    def piece(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """One piece of the reply as a stream."""
        name = "chat.completion.chunk" if self.object == "chat.completion" else self.object
        return {**self._common(name), "choices": list(choices), **more}

    def _common(self, name: str) -> dict[str, Any]:
        same = {"created": self.created, "model": self.model, "system_fingerprint": self.system_fingerprint}
        return {"id": self.id, "object": name, **same}


def open_reply(server: ServerState, version: int, *, is_chat: bool, now: float) -> OpenaiReply:
    """A new reply of a version."""
    prefix, name = ("chatcmpl", "chat.completion") if is_chat else ("cmpl", "text_completion")
    model = name_version(short_name(server.base.name), version)
    return OpenaiReply(f"{prefix}-{uuid.uuid4().hex}", name, int(now), model, fingerprint_of(server.base, version))


def fingerprint_of(base: Base, version: int) -> str:
    """A digest of what decides an answer: the base model, the version, the arithmetic."""
    parts = f"{base.fingerprint} {version} {name_of(base.dtype)} {base.device.type}"
    return f"fp_{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def describe_choices(
    base: Base, body: CompletionIn | ChatIn, questions: ChoiceRequests, answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """The whole answers as choices, in the order of the questions."""
    choices = []
    for number, (question, answer) in enumerate(zip(questions.asked, answers, strict=True)):
        tokens = TokenTeller(base).tell(answer.logprobs, len(answer.text))
        same = {"index": number, "finish_reason": FINISH_REASONS[answer.finish_reason]}
        if isinstance(body, ChatIn):
            message = {"role": "assistant", "content": answer.text, "refusal": None}
            choices.append({**same, "message": message, "logprobs": chat_logprobs(tokens) if body.logprobs else None})
        else:
            told = completion_logprobs(tokens) if body.logprobs is not None else None
            choices.append({**same, "text": question.echo + answer.text, "logprobs": told})
    return choices


def count_usage(answers: Sequence[Answer], choices: int) -> dict[str, Any]:
    """The tokens of all answers; `choices` of them follow one prompt, whose tokens count once. What a version stated in front of
    prompts is counted apart.
    """
    firsts = answers[::choices]
    prompt = sum(answer.prompt_tokens for answer in firsts)
    completion = sum(answer.completion_tokens for answer in answers)
    details = {"cached_tokens": 0, "context_tokens": sum(answer.context_tokens for answer in firsts)}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }


@dataclass(frozen=True)
class ToldToken:
    """One token of an answer as text, where it begins in the answer, and its probabilities."""

    text: str
    start: int
    logprob: float
    top: tuple[tuple[str, float], ...]


class TokenTeller:
    """Tells the tokens of one answer, each once. A token that is no whole character begins where the next one does."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._ids: list[int] = []

    def tell(self, logprobs: Sequence[TokenLogprobs], length: int) -> list[ToldToken]:
        """Those that were not told yet, of a text of which `length` characters are known."""
        told = []
        for each in logprobs[len(self._ids) :]:
            start = len(decode_ids(self._base, self._ids))
            if start >= length:
                break
            self._ids.append(each.token)
            top = tuple((decode_ids(self._base, [token]), value) for token, value in each.top)
            told.append(ToldToken(decode_ids(self._base, [each.token]), start, each.logprob, top))
        return told


def completion_logprobs(tokens: Sequence[ToldToken]) -> dict[str, Any]:
    """The probabilities as completions have them."""
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(reversed(token.top)) for token in tokens],  # of equal texts the likelier one stays
        "text_offset": [token.start for token in tokens],
    }


def chat_logprobs(tokens: Sequence[ToldToken]) -> dict[str, Any]:
    """The probabilities as chats have them."""
    content = [
        {
            **_describe(token.text, token.logprob),
            "top_logprobs": [_describe(text, value) for text, value in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _describe(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
