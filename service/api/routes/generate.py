"""`/generate`: ask the model. An answer is never cached, and a client that goes away stops costing."""

import time
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response

from service.api.async_answers import collect_answers
from service.api.explanations import explain
from service.api.problems import CORRUPT, GONE, INVALID, NOT_FOUND, TOO_LONG, UNAVAILABLE, UNCOMPUTABLE, responses
from service.api.schemas.generate import AnswerOut, GenerateIn, GenerateQuery
from service.api.state import State
from service.api.strict_json import StrictRoute
from service.domain.errors import TooLong
from service.lm.stated_edits import StatedPrompt, encode_stated
from service.serving.residents import Resident
from service.serving.scheduler import Generation

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
PROBLEMS = responses(NOT_FOUND, GONE, INVALID, TOO_LONG, CORRUPT, UNCOMPUTABLE, UNAVAILABLE)


@router.get("/generate", responses=PROBLEMS, summary="Ask the model, in the address line")
async def ask(server: State, query: Annotated[GenerateQuery, Query()], request: Request, response: Response) -> AnswerOut:
    """Continue a prompt greedily. For longer prompts and further settings use `POST /generate`."""
    version = int(query.version) if query.version.isdigit() else query.version
    asked = {"prompt": query.prompt, "max_new_tokens": query.max_new_tokens, "version": version, "explain": query.explain}
    return await _answer(server, GenerateIn(**asked), request, response)  # type: ignore[arg-type]


@router.post("/generate", responses=PROBLEMS, summary="Ask the model")
async def ask_in_full(
    server: State, question: GenerateIn, request: Request, response: Response, caller: Caller = None
) -> AnswerOut:
    """Continue a prompt. One version answers from first token to last, and is named in the answer and in `X-Model-Version`."""
    answer = await _answer(server, question, request, response)
    stands_for_itself = question.system is None and not question.turns
    if stands_for_itself and caller in server.settings.reservoir.callers:
        server.reservoir.offer(question.prompt)
    return answer


async def _answer(server: State, question: GenerateIn, request: Request, response: Response) -> AnswerOut:
    # Threads of its own: those of the other routes may all be waiting for a database that is away.
    pinned, prompt, generation = await to_thread.run_sync(_read_question, server, question, limiter=server.encoders)
    stream = server.serving.submit(generation, pinned)
    (answer,) = await collect_answers(request, [stream])
    explanation = None
    if question.explain:  # in a thread of the other routes, as it reads the database
        explanation = await to_thread.run_sync(explain, server, stream.resident, prompt)
        request.state.in_scope = explanation.count
    response.headers["X-Model-Version"] = str(answer.version)
    response.headers["X-Model-Epoch"] = str(answer.epoch)
    response.headers["Cache-Control"] = "no-store"
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
