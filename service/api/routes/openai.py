"""`/v1`: the OpenAI API. A model's name says which version answers; errors have the envelope of that API."""

import time
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.async_answers import collect_answers, submit_all
from service.api.openai_api.answers import count_usage, describe_choices, open_reply
from service.api.openai_api.documents import CHAT, COMPLETION, MODEL, answers
from service.api.openai_api.models import list_models, read_model
from service.api.openai_api.pieces import iterate_pieces
from service.api.openai_api.questions import ChoiceRequests, read_chat, read_completion
from service.api.openai_api.schemas import ChatIn, CompletionIn
from service.api.sse import respond
from service.api.state import ServerState, State
from service.api.strict_json import StrictRoute

router = APIRouter(prefix="/v1", tags=["openai"], route_class=StrictRoute)


@router.get(
    "/models",
    summary="List the names under which versions answer",
    responses=answers({"object": "list", "data": [MODEL]}, "Every name."),
)
def get_models(server: State) -> dict[str, Any]:
    """The head, the base, and every version that is kept, the newest first."""
    return {"object": "list", "data": list_models(server)}


@router.get("/models/{name:path}", summary="Read one of these names", responses=answers(MODEL, "The version of the name."))
def get_model(
    server: State, name: Annotated[str, Path(max_length=300, description="the name", examples=["atlas@v12"])]
) -> dict[str, Any]:
    """The version that a name means now."""
    return read_model(server, name)


@router.post(
    "/completions",
    summary="Continue a text",
    response_model=None,
    responses=answers(COMPLETION, "The completions, or with `stream` their pieces.", is_streamed=True),
)
async def post_completion(server: State, body: CompletionIn, request: Request, response: Response) -> Any:
    """Continue one text or several. As the OpenAI API; a parameter that would not be followed is refused by its name."""
    questions = await to_thread.run_sync(read_completion, server, body, limiter=server.encoders)
    return await _answer(server, body, questions, request, response)


@router.post(
    "/chat/completions",
    summary="Continue a conversation",
    response_model=None,
    responses=answers(CHAT, "The next message, or with `stream` its pieces.", is_streamed=True),
)
async def post_chat(server: State, body: ChatIn, request: Request, response: Response) -> Any:
    """Say the assistant's next message, by the model's own chat template. A model without one is refused."""
    questions = await to_thread.run_sync(read_chat, server, body, limiter=server.encoders)
    return await _answer(server, body, questions, request, response)


async def _answer(
    server: ServerState, body: CompletionIn | ChatIn, questions: ChoiceRequests, request: Request, response: Response
) -> Any:
    version = questions.resident.version
    headers = {"X-Model-Version": str(version), "X-Model-Epoch": str(questions.epoch)}
    reply = open_reply(server, version, is_chat=isinstance(body, ChatIn), now=time.time())
    pinned = (questions.resident, questions.epoch)
    streams = submit_all(server.serving, [(each.generation, pinned) for each in questions.asked])
    if body.stream:
        return await respond(iterate_pieces(server, body, questions, reply, streams), headers)
    whole = await collect_answers(request, streams)
    choices = await run_in_threadpool(describe_choices, server.base, body, questions, whole)
    response.headers.update({**headers, "Cache-Control": "no-store"})
    return reply.whole(choices, count_usage(whole, body.choices))
