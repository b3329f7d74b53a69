"""A reply of the OpenAI API as a stream of pieces, each a server-sent event."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from service.api.async_answers import merge_deltas
from service.api.openai_api.answers import (
    FINISH_REASONS,
    OpenaiReply,
    TokenTeller,
    chat_logprobs,
    completion_logprobs,
    count_usage,
)
from service.api.openai_api.envelope import describe_error
from service.api.openai_api.questions import ChoiceRequests
from service.api.openai_api.schemas import ChatIn, CompletionIn
from service.api.problems import problem_of
from service.api.sse import encode_event
from service.api.state import ServerState
from service.lm.base import Base
from service.serving.answer_stream import AnswerStream

DONE = "[DONE]"


async def iterate_pieces(
    server: ServerState,
    body: CompletionIn | ChatIn,
    questions: ChoiceRequests,
    reply: OpenaiReply,
    streams: Sequence[AnswerStream],
) -> AsyncIterator[bytes]:
    """The events of a reply. An error before the first piece is raised; a later one is the last event."""
    has_begun = False
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    no_usage = {"usage": None} if wants_usage else {}
    choices = [_StreamedChoice(server.base, body, number, stream) for number, stream in enumerate(streams)]
    try:
        async for number, delta in merge_deltas(streams):
            if not has_begun:
                has_begun = True
                for choice, question in zip(choices, questions.asked, strict=True):
                    for begun in choice.begin(question.echo):
                        yield encode_event(reply.piece([begun], **no_usage))
            yield encode_event(
                reply.piece([choices[number].end() if delta is None else choices[number].go_on(delta)], **no_usage)
            )
        if wants_usage:
            answers = [stream.answer.result() for stream in streams]
            yield encode_event(reply.piece([], usage=count_usage(answers, body.choices)))
    except Exception as error:
        if not has_begun:
            raise
        yield encode_event(describe_error(problem_of(error)))
    yield encode_event(DONE)


class _StreamedChoice:
    """One choice while it is sent."""

    def __init__(self, base: Base, body: CompletionIn | ChatIn, number: int, stream: AnswerStream) -> None:
        self.body, self.number, self.stream = body, number, stream
        self._sent = 0  # characters
        self._teller = TokenTeller(base)

    def begin(self, echo: str) -> list[dict[str, Any]]:
        """What is sent before the first text: who speaks, or the prompt."""
        if isinstance(self.body, ChatIn):
            return [self._choice({"role": "assistant", "content": ""}, None)]
        return [self._choice(echo, None)] if echo else []

    def go_on(self, delta: str) -> dict[str, Any]:
        """A delta of the text."""
        self._sent += len(delta)
        return self._choice({"content": delta} if isinstance(self.body, ChatIn) else delta, None, self._tell())

    def end(self) -> dict[str, Any]:
        """The end, with its reason."""
        reason = FINISH_REASONS[self.stream.answer.result().finish_reason]
        return self._choice({} if isinstance(self.body, ChatIn) else "", reason, self._tell())

    def _choice(self, content: Any, reason: str | None, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
        name = "delta" if isinstance(self.body, ChatIn) else "text"
        return {"index": self.number, name: content, "logprobs": logprobs, "finish_reason": reason}

    def _tell(self) -> dict[str, Any] | None:
        """The probabilities of the tokens that are sent and not told yet."""
        if self.stream.generation.top_logprobs is None:
            return None
        new = self._teller.tell(self.stream.logprobs, self._sent)
        return (chat_logprobs(new) if isinstance(self.body, ChatIn) else completion_logprobs(new)) if new else None
