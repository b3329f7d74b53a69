"""`/edits`: post corrections, read them, take them back."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from service.api.idempotency import REPLAY_HEADER, Key, digest_of, with_replay_header
from service.api.pagination import decode_position, encode_position, next_link
from service.api.path_ids import id_path
from service.api.principal import Author
from service.api.problems import CONFLICT, GONE, INVALID, NOT_FOUND, TOO_LONG, UNAVAILABLE, responses
from service.api.schemas import In, Page
from service.api.schemas.edits import (
    EXAMPLE_EDIT_OUT,
    EXAMPLE_LISTED,
    BatchIn,
    EditIn,
    EditOut,
    ListedEditOut,
    ListQuery,
    RetractQuery,
    WaitQuery,
)
from service.api.state import ServerState, State
from service.api.strict_json import StrictRoute
from service.api.text_types import ID
from service.api.wait_limit import Address
from service.domain.cost_limits import CostLimits
from service.domain.edit import Edit, EditStatus
from service.lifecycle.edit_cost import CostChecker
from service.lifecycle.length_checks import check_lengths
from service.lifecycle.retract import retract
from service.lifecycle.submit import SubmitReceipt, submit
from service.store import edits, heads, list_rows
from service.store.list_rows import ListedEdit

router = APIRouter(prefix="/edits", tags=["edits"], route_class=StrictRoute)
RETRY_AFTER_S = "1"
READ_ROWS_EVERY_S = 5.0  # who waits is told; should that ever fail, the rows are asked


EditId = Annotated[str, ID, Path(description="the edit's id", examples=[EXAMPLE_EDIT_OUT["id"]])]
QUEUED_LISTED = EXAMPLE_LISTED | {"status": "queued", "version": None, "applied_at": None}
QUEUED = EXAMPLE_EDIT_OUT | {"status": "queued", "version": None, "report": None, "applied_at": None}
ALL_ACCEPTED = "All accepted and durable, and not all settled yet."


def accepted(model: type[Any], example: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of a 202."""
    headers = {
        "Location": {"description": "where to look", "schema": {"type": "string"}},
        "Retry-After": {"description": "seconds after which to look again", "schema": {"type": "integer"}},
    }
    content = {"application/json": {"example": example}}
    return {202: {"model": model, "description": description, "headers": headers, "content": content}}


@router.post(
    "",
    summary="Post a correction",
    responses=with_replay_header(with_replay_header(accepted(EditOut, QUEUED, "Accepted and durable, and not settled yet."), 202))
    | responses(GONE, INVALID, TOO_LONG, UNAVAILABLE),
)
async def post_edit(
    server: State,
    edit: EditIn,
    query: Annotated[WaitQuery, Query()],
    author: Author,
    key: Key,
    address: Address,
    response: Response,
) -> EditOut:
    """Accept an edit; with `wait`, answer as soon as it is settled and the model answers with it.

    200 with the whole edit once it is settled, or if an edit with the same conflict key and target is there that teaches the same
    on the same surfaces already; else 202.
    """
    receipt = await _submit(server, [edit], edit, author=author, key=key)
    await _wait_until_settled(server, receipt, query.wait, address)
    (found,) = await run_in_threadpool(_read, server, receipt.ids)
    response.headers["Location"] = f"/edits/{found.id}"
    _set_status(response, receipt, query.wait, [found.status])
    return EditOut.of(found)


@router.post(
    "/batch",
    summary="Post several corrections",
    responses=with_replay_header(
        with_replay_header(
            accepted(
                Page[ListedEditOut],
                {"items": [QUEUED_LISTED], "next": None},
                "All accepted and durable, and not all settled yet.",
            ),
            202,
        )
    )
    | responses(GONE, INVALID, TOO_LONG, UNAVAILABLE),
)
async def post_batch(
    server: State,
    batch: BatchIn,
    query: Annotated[WaitQuery, Query()],
    author: Author,
    key: Key,
    address: Address,
    response: Response,
) -> Page[ListedEditOut]:
    """Accept all edits or none, in order. Edits that wait together are fitted together.

    The answer has each edit in short, as the list does; `GET /edits/{id}` has all of one.
    """
    receipt = await _submit(server, batch.edits, batch, author=author, key=key)
    await _wait_until_settled(server, receipt, query.wait, address)
    found = await run_in_threadpool(_read_in_short, server, receipt.ids)
    response.headers["Location"] = "/edits"
    _set_status(response, receipt, query.wait, [edit.status for edit in found])
    return Page[ListedEditOut](items=[ListedEditOut.of(edit) for edit in found])


@router.get("", summary="List edits, newest first", responses=responses(INVALID, UNAVAILABLE))
def list_edits(server: State, query: Annotated[ListQuery, Query()], response: Response) -> Page[ListedEditOut]:
    """Edits in reverse order of submission, each in short: its longer texts are cut after 500 characters, and its probes,
    metadata and report are in `GET /edits/{id}`. `next` is the cursor of the older ones.
    """
    statuses = () if query.status is None else (EditStatus(query.status),)
    before = decode_position(query.cursor)
    with server.store.read() as connection:
        found = list_rows.read_edits_page(connection, statuses=statuses, limit=query.limit + 1, before_seq=before)
    shown = found[: query.limit]
    following = encode_position(shown[-1].seq) if len(found) > query.limit else None
    if following is not None:
        narrowed = {"status": query.status}
        response.headers["Link"] = next_link("/edits", limit=query.limit, cursor=following, narrowed=narrowed)
    return Page[ListedEditOut](items=[ListedEditOut.of(edit) for edit in shown], next=following)


@router.get(id_path("edit_id"), summary="Read an edit", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_edit(server: State, edit_id: EditId) -> EditOut:
    """What was asked for, where it stands, and what it did."""
    return EditOut.of(_read(server, [edit_id])[0])


@router.delete(
    id_path("edit_id"),
    summary="Take an edit back",
    responses=accepted(EditOut, EXAMPLE_EDIT_OUT, "Durable; the model stops answering with it in a moment.")
    | responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE),
)
async def delete_edit(
    server: State,
    edit_id: EditId,
    query: Annotated[RetractQuery, Query()],
    author: Author,
    address: Address,
    response: Response,
) -> EditOut:
    """Retract an edit: the model answers again as if it had not been made. It stays in the history.

    202 when accepted (one that is still queued is retracted at once), 200 if it was retracted before, 409 if it is not live.
    """
    before = await run_in_threadpool(_status, server, edit_id)
    edit = await run_in_threadpool(_retract, server, edit_id, query, author)
    if query.wait > 0:
        await _wait_until(server, [edit_id], query.wait, lambda status: status is EditStatus.RETRACTED, address)
        (edit,) = await run_in_threadpool(_read, server, [edit_id])
    was_done = before is EditStatus.RETRACTED or (query.wait > 0 and edit.status is EditStatus.RETRACTED)
    response.status_code = 200 if was_done else 202
    response.headers["Location"] = f"/edits/{edit_id}"
    if not was_done:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return EditOut.of(edit)


def _retract(server: ServerState, edit_id: str, query: RetractQuery, author: str) -> Edit:
    return retract(server.store, edit_id, author=author, restore_previous=query.restore_previous, ring=server.ring).edit


async def _submit(server: ServerState, given: Sequence[EditIn], body: In, *, author: str, key: str | None) -> SubmitReceipt:
    def check_and_submit() -> SubmitReceipt:  # all of it in a thread: a batch may be megabytes
        requests = [edit.to_domain(server.settings.default_method) for edit in given]
        digest = digest_of(body)
        limits, is_batch = server.settings.limits, isinstance(body, BatchIn)
        costs = CostChecker(
            server.base, CostLimits(limits.edit_tokens, limits.report_tokens, limits.batch_tokens), is_batch=is_batch
        )
        check_lengths(server.base, requests, is_batch=is_batch)
        costs.check(requests)
        return submit(
            server.store,
            requests,
            author=author,
            idempotency_key=key,
            body_hash=digest,
            method=server.settings.default_method,
            waiting_limit=server.settings.limits.waiting_edits,
            cost_of=costs.cost_of,
            ring=server.ring,
        )

    return await run_in_threadpool(check_and_submit)


def _set_status(response: Response, receipt: SubmitReceipt, wait_s: float, statuses: Sequence[EditStatus]) -> None:
    """200 when there is nothing to wait for, else 202; a replay says that it is one."""
    is_settled = wait_s > 0 and all(status.is_settled for status in statuses)
    response.status_code = 200 if is_settled or all(identical for _, identical in receipt.accepted) else 202
    if response.status_code == 202:
        response.headers["Retry-After"] = RETRY_AFTER_S
    if receipt.replayed:
        response.headers[REPLAY_HEADER] = "true"


async def _wait_until_settled(server: ServerState, receipt: SubmitReceipt, wait_s: float, address: str) -> None:
    if wait_s > 0:
        await _wait_until(server, receipt.ids, wait_s, lambda status: status.is_settled, address)


async def _wait_until(
    server: ServerState, edit_ids: Sequence[str], wait_s: float, holds: Callable[[EditStatus], bool], address: str
) -> None:
    """Return once `holds` is true of each edit, at the end of the time, or when the server is asked to stop. Holds no thread.

    Returns at once if too many wait.
    """

    def is_answered(edit_id: str) -> bool:
        """Whether it holds in the rows and this process answers with what the rows say: the rows are ahead for a moment."""
        with server.store.read() as connection:
            there = holds(edits.read_status(connection, edit_id))
            return there and server.lifecycle.follower.current.epoch >= heads.read(connection).epoch

    until = time.monotonic() + wait_s
    with server.wait_limit.place(address) as has_place:
        for edit_id in dict.fromkeys(edit_ids) if has_place else ():
            while (left_s := until - time.monotonic()) > 0 and not server.draining.is_set():
                announced = await server.announcer.wait(
                    edit_id, min(left_s, READ_ROWS_EVERY_S), is_settled=is_answered, is_given_up=server.draining.is_set
                )
                if announced and await run_in_threadpool(is_answered, edit_id):
                    break


def _status(server: ServerState, edit_id: str) -> EditStatus:
    with server.store.read() as connection:
        return edits.read_status(connection, edit_id)


def _read(server: ServerState, edit_ids: Sequence[str]) -> list[Edit]:
    with server.store.read() as connection:
        return [edits.get(connection, edit_id) for edit_id in edit_ids]


def _read_in_short(server: ServerState, edit_ids: Sequence[str]) -> list[ListedEdit]:
    with server.store.read() as connection:
        found = list_rows.read_edits_by_id(connection, set(edit_ids))
    return [found[edit_id] for edit_id in edit_ids]
