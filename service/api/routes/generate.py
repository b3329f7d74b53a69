"""`/generate`: ask the model. An answer is never cached, and a client that goes away stops costing."""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.api.async_answers import collect_answers, iterate_deltas, submit_all
from service.api.explanations import explain
from service.api.problems import CORRUPT, GONE, INVALID, NOT_FOUND, TOO_LONG, UNAVAILABLE, UNCOMPUTABLE, problem_of, responses
from service.api.schemas.generate import (
    AnswerOut,
    ComparedAnswersOut,
    CompareIn,
    ExplanationOut,
    GenerateIn,
    GenerateQuery,
)
from service.api.sse import encode_event, respond
from service.api.state import State
from service.api.strict_json import StrictRoute
from service.domain.errors import TooLong
from service.lm.stated_edits import StatedPrompt, encode_stated
from service.serving.residents import Resident
from service.serving.scheduler import Answer, AnswerStream, Generation

router = APIRouter(tags=["generate"], route_class=StrictRoute)
# A page of another site cannot send it, and who only reads (`GET`) teaches nothing: a link would be enough for that.
Caller = Annotated[
    str | None,
    Header(
        alias="X-Errata-Caller",
        max_length=64,
        description="who asks; prompts of the callers named in the setting `reservoir.callers` may be kept for retrains",
    ),
]
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": 'data: {"delta":"Canberra"}\n\n'}}}
}
PROBLEMS = responses(NOT_FOUND, GONE, INVALID, TOO_LONG, CORRUPT, UNCOMPUTABLE, UNAVAILABLE)


@router.get("/generate", responses=STREAMED | PROBLEMS, response_model=AnswerOut, summary="Ask the model, in the address line")
async def ask(server: State, query: Annotated[GenerateQuery, Query()], request: Request, response: Response) -> Any:
    """Continue a prompt greedily. For longer prompts and further settings use `POST /generate`."""
    version = int(query.version) if query.version.isdigit() else query.version
    asked = {"prompt": query.prompt, "max_new_tokens": query.max_new_tokens, "version": version, "explain": query.explain}
    asked["stream"] = query.stream
    return await _answer(server, GenerateIn(**asked), request, response)  # type: ignore[arg-type]


@router.post("/generate", responses=STREAMED | PROBLEMS, response_model=AnswerOut, summary="Ask the model")
async def ask_in_full(server: State, question: GenerateIn, request: Request, response: Response, caller: Caller = None) -> Any:
    """Continue a prompt. One version answers from first token to last, and is named in the answer and in `X-Model-Version`.

    With `stream` it comes as server-sent events: `{"delta": …}` for each piece of its text, and at the end the whole answer.
    """
    answer = await _answer(server, question, request, response)
    stands_for_itself = question.system is None and not question.turns
    if stands_for_itself and caller in server.settings.reservoir.callers:
        server.reservoir.offer(question.prompt)
    return answer


@router.post("/compare", responses=PROBLEMS, summary="Ask several versions the same")
async def compare(server: State, question: CompareIn, request: Request, response: Response) -> ComparedAnswersOut:
    """Continue a prompt by several versions side by side, in one batch where they share tensors. All answer, or none."""
    same = question.model_dump(exclude={"versions"})
    asked = [GenerateIn(**same, version=version) for version in question.versions]
    read = [await to_thread.run_sync(_read_question, server, each, limiter=server.encoders) for each in asked]
    streams = submit_all(server.serving, [(generation, pinned) for pinned, _, generation in read])
    answers = await collect_answers(request, streams)
    response.headers["Cache-Control"] = "no-store"
    return ComparedAnswersOut(answers=[_to_out(answer) for answer in answers])


async def _answer(server: State, question: GenerateIn, request: Request, response: Response) -> AnswerOut | StreamingResponse:
    # Threads of its own: those of the other routes may all be waiting for a database that is away.
    pinned, prompt, generation = await to_thread.run_sync(_read_question, server, question, limiter=server.encoders)
    stream = server.serving.submit(generation, pinned)
    headers = {"X-Model-Version": str(stream.resident.version), "X-Model-Epoch": str(pinned[1])}
    if question.stream:
        return await respond(_events(server, question, request, stream, prompt), headers)
    await collect_answers(request, [stream])
    response.headers.update({**headers, "Cache-Control": "no-store"})
    return await _describe(server, question, request, stream, prompt)


async def _events(
    server: State, question: GenerateIn, request: Request, stream: AnswerStream, prompt: StatedPrompt
) -> AsyncIterator[bytes]:
    """The pieces of an answer, then the whole. An error before the first piece is raised; a later one is the last event."""
    has_begun = False
    try:
        async for delta in iterate_deltas(stream):
            has_begun = True
            yield encode_event({"delta": delta})
        whole = await _describe(server, question, request, stream, prompt)
    except Exception as error:
        if not has_begun:
            raise
        yield encode_event({"problem": json.loads(problem_of(error).body())})
        return
    yield encode_event(whole.model_dump(mode="json"))


async def _describe(
    server: State, question: GenerateIn, request: Request, stream: AnswerStream, prompt: StatedPrompt
) -> AnswerOut:
    """A finished answer, explained if the question wants that."""
    answer = stream.result()
    explanation = None
    if question.explain:  # in a thread of the other routes, as it reads the database
        explanation = await to_thread.run_sync(explain, server, stream.resident, prompt)
        request.state.in_scope = explanation.count
    return _to_out(answer, explanation)


def _to_out(answer: Answer, explanation: ExplanationOut | None = None) -> AnswerOut:
    return AnswerOut(
        text=answer.text,
        version=answer.version,
        epoch=answer.epoch,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        context_tokens=answer.context_tokens,
        completion_tokens=answer.completion_tokens,
        explanation=explanation,
    )


def _read_question(server: State, question: GenerateIn) -> tuple[tuple[Resident, int], StatedPrompt, Generation]:
    """The version that answers, and the question in ids, behind what this version states and checked against the context."""
    resident, epoch = server.serving.pin(server.resident(question.version))
    prompt = encode_stated(
        server.base,
        resident.stated,
        question.prompt,
        surface=question.surface,
        system=question.system,
        turns=[(turn.user, turn.assistant) for turn in question.turns],
        room=question.max_new_tokens,
    )
    length = len(prompt.asked_ids)
    if length + question.max_new_tokens > server.base.context_length:
        raise TooLong(
            f"prompt and max_new_tokens must together be at most {server.base.context_length} tokens; the prompt has {length}",
            field="prompt",
        )
    generation = Generation(
        prompt_ids=prompt.ids,
        asked_ids=prompt.asked_ids,
        max_new_tokens=question.max_new_tokens,
        temperature=question.temperature,
        top_p=question.top_p,
        seed=question.seed,
        stop=tuple(question.stop),
        deadline=time.monotonic() + server.settings.generation.deadline_s,
    )
    return (resident, epoch), prompt, generation
