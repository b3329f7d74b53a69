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
from service.domain.next_try import NextTry
from service.lifecycle.edit_cost import CostChecker
from service.lifecycle.length_checks import check_lengths
from service.lifecycle.next_tries import read_next_tries
from service.lifecycle.retract import retract
from service.lifecycle.submit import SubmitReceipt, submit
from service.store import edits, heads, list_rows
from service.store.list_rows import ListedEdit

router = APIRouter(prefix="/edits", tags=["edits"], route_class=StrictRoute)
RETRY_AFTER_S = "1"
READ_ROWS_EVERY_S = 5.0  # waiting calls are notified; the rows are read in case a notification is lost
EditId = Annotated[str, ID, Path(description="the edit's id", examples=[EXAMPLE_EDIT_OUT["id"]])]
QUEUED_LISTED = EXAMPLE_LISTED | {"status": "queued", "version": None, "applied_at": None}
QUEUED = EXAMPLE_EDIT_OUT | {"status": "queued", "version": None, "report": None, "applied_at": None}
ALL_ACCEPTED = "All accepted and durable, and not all settled yet."


def accepted(model: type[Any], example: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of a 202."""
    headers = {
        "Location": {"description": "the address of the edit, or of the list of edits", "schema": {"type": "string"}},
        "Retry-After": {"description": "seconds until the next read makes sense", "schema": {"type": "integer"}},
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
    """Accept an edit. With `wait`, the call returns as soon as the edit is settled and the model answers with it.

    200 with the whole edit if it is settled, or if an edit with the same conflict key and target already trains the request's
    wordings on its surfaces; else 202.
    """
    receipt = await _submit(server, [edit], edit, author=author, key=key)
    await _wait_until_settled(server, receipt, query.wait, address)
    accepted_edit, next_try = await run_in_threadpool(_read, server, receipt.ids[0])
    response.headers["Location"] = f"/edits/{accepted_edit.id}"
    _set_status(response, receipt, query.wait, [accepted_edit.status])
    return EditOut.of(accepted_edit, next_try, is_stated=_is_stated(server, accepted_edit.id))


@router.post(
    "/batch",
    summary="Post several corrections",
    responses=with_replay_header(
        with_replay_header(
            accepted(
                Page[ListedEditOut],
                {"items": [QUEUED_LISTED], "next": None},
                ALL_ACCEPTED,
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

    The answer has the edits in short, as the list does; `GET /edits/{id}` has all fields of one edit.
    """
    receipt = await _submit(server, batch.edits, batch, author=author, key=key)
    await _wait_until_settled(server, receipt, query.wait, address)
    listed = await run_in_threadpool(_read_listed, server, receipt.ids)
    response.headers["Location"] = "/edits"
    _set_status(response, receipt, query.wait, [edit.status for edit in listed])
    return Page[ListedEditOut](items=await run_in_threadpool(_list, server, listed))


@router.get("", summary="List edits, newest first", responses=responses(INVALID, UNAVAILABLE))
def list_edits(server: State, query: Annotated[ListQuery, Query()], response: Response) -> Page[ListedEditOut]:
    """Edits in reverse order of submission, in short: texts are cut after 500 characters, and the probes, the metadata and the
    report are in `GET /edits/{id}`. `next` is the cursor of the older edits.
    """
    statuses = () if query.status is None else (EditStatus(query.status),)
    before = decode_position(query.cursor)
    with server.store.read() as connection:
        rows = list_rows.read_edits_page(connection, statuses=statuses, limit=query.limit + 1, before_seq=before)
    page = rows[: query.limit]
    next_cursor = encode_position(page[-1].seq) if len(rows) > query.limit else None
    if next_cursor is not None:
        filters = {"status": query.status}
        response.headers["Link"] = next_link("/edits", limit=query.limit, cursor=next_cursor, filters=filters)
    return Page[ListedEditOut](items=_list(server, page), next=next_cursor)


@router.get(id_path("edit_id"), summary="Read an edit", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_edit(server: State, edit_id: EditId) -> EditOut:
    """The request, the status and the report of an edit."""
    return EditOut.of(*_read(server, edit_id), is_stated=_is_stated(server, edit_id))


@router.delete(
    id_path("edit_id"),
    summary="Take an edit back",
    responses=accepted(EditOut, EXAMPLE_EDIT_OUT, "Durable; the model stops answering with the edit in a moment.")
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
    """Retract an edit: the model answers as if the edit had not been made. The edit stays in the history.

    202 when the retraction is accepted (a queued edit is retracted at once), 200 if the edit was retracted before, 409 if it can
    no longer be retracted.
    """
    before = await run_in_threadpool(_status, server, edit_id)
    await run_in_threadpool(_retract, server, edit_id, query, author)
    if query.wait > 0:
        await _wait_until(server, [edit_id], query.wait, lambda status: status is EditStatus.RETRACTED, address)
    edit, next_try = await run_in_threadpool(_read, server, edit_id)
    is_retracted = before is EditStatus.RETRACTED or (query.wait > 0 and edit.status is EditStatus.RETRACTED)
    response.status_code = 200 if is_retracted else 202
    response.headers["Location"] = f"/edits/{edit_id}"
    if not is_retracted:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return EditOut.of(edit, next_try, is_stated=_is_stated(server, edit_id))


def _retract(server: ServerState, edit_id: str, query: RetractQuery, author: str) -> None:
    retract(server.store, edit_id, author=author, restore_previous=query.restore_previous, ring=server.ring)
    server.state_waiting()


async def _submit(server: ServerState, edits_in: Sequence[EditIn], body: In, *, author: str, key: str | None) -> SubmitReceipt:
    def check_and_submit() -> SubmitReceipt:  # all of it in a thread: a batch may be megabytes
        requests = [edit.to_domain(server.settings.default_method) for edit in edits_in]
        digest = digest_of(body)
        limits, is_batch = server.settings.limits, isinstance(body, BatchIn)
        costs = CostChecker(
            server.base, CostLimits(limits.edit_tokens, limits.report_tokens, limits.batch_tokens), is_batch=is_batch
        )
        check_lengths(server.base, requests, is_batch=is_batch)
        costs.check(requests)
        receipt = submit(
            server.store,
            requests,
            author=author,
            idempotency_key=key,
            body_hash=digest,
            method=server.settings.default_method,
            incremental_method=server.settings.incremental_method,
            waiting_limit=server.settings.limits.waiting_edits,
            cost_of=costs.cost_of,
            ring=server.ring,
        )
        server.state_waiting()
        return receipt

    return await run_in_threadpool(check_and_submit)


def _set_status(response: Response, receipt: SubmitReceipt, wait_s: float, statuses: Sequence[EditStatus]) -> None:
    """Set 200 if there is nothing to wait for, else 202, and the header of a replay."""
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
    server: ServerState, edit_ids: Sequence[str], wait_s: float, is_reached: Callable[[EditStatus], bool], address: str
) -> None:
    """Return once `is_reached` is true for each status, when the time is over, or when the server stops. Occupies no thread.

    Returns at once if too many calls wait.
    """

    def is_answered(edit_id: str) -> bool:
        """Whether the status is reached and this process serves the head of the rows: for a moment the rows are ahead."""
        with server.store.read() as connection:
            has_status = is_reached(edits.read_status(connection, edit_id))
            return has_status and server.lifecycle.follower.current.epoch >= heads.read(connection).epoch

    deadline = time.monotonic() + wait_s
    with server.wait_limit.place(address) as has_place:
        for edit_id in dict.fromkeys(edit_ids) if has_place else ():
            while (left_s := deadline - time.monotonic()) > 0 and not server.draining.is_set():
                announced = await server.announcer.wait(
                    edit_id, min(left_s, READ_ROWS_EVERY_S), is_settled=is_answered, is_given_up=server.draining.is_set
                )
                if announced and await run_in_threadpool(is_answered, edit_id):
                    break


def _status(server: ServerState, edit_id: str) -> EditStatus:
    with server.store.read() as connection:
        return edits.read_status(connection, edit_id)


def _read(server: ServerState, edit_id: str) -> tuple[Edit, NextTry | None]:
    """An edit, and its next try if it is deferred."""
    with server.store.read() as connection:
        edit = edits.get(connection, edit_id)
        deferred_ids = [edit_id] if edit.status is EditStatus.DEFERRED else []
        return edit, read_next_tries(connection, server.lifecycle, deferred_ids).get(edit_id)


def _is_stated(server: ServerState, edit_id: str) -> bool:
    """Whether the head that answers here states an edit."""
    return any(edit.id == edit_id for edit in server.lifecycle.follower.current.stated)


def _list(server: ServerState, listed: Sequence[ListedEdit]) -> list[ListedEditOut]:
    """Edits in short as answers, with the next try of those that are deferred."""
    with server.store.read() as connection:
        deferred_ids = [edit.id for edit in listed if edit.status is EditStatus.DEFERRED]
        next_tries = read_next_tries(connection, server.lifecycle, deferred_ids)
    return [ListedEditOut.of(edit, next_tries.get(edit.id)) for edit in listed]


def _read_listed(server: ServerState, edit_ids: Sequence[str]) -> list[ListedEdit]:
    with server.store.read() as connection:
        by_id = list_rows.read_edits_by_id(connection, set(edit_ids))
    return [by_id[edit_id] for edit_id in edit_ids]
