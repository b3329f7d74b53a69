"""`/versions`: list and read versions, and the use of their bases."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool

from service.api.pagination import decode_position, encode_position, next_link
from service.api.problems import CORRUPT, GONE, INVALID, NOT_FOUND, UNAVAILABLE, responses
from service.api.schemas import Page
from service.api.schemas.versions import BasesOut, VersionOut, VersionQuery
from service.api.state import ServerState, State
from service.api.text_types import VERSION
from service.api.version_details import read_details
from service.background.basis_use import measure_basis_use
from service.domain.version import Version
from service.store import heads, stated_edits, versions

router = APIRouter(prefix="/versions", tags=["versions"])
NumberOrHead = Annotated[str, VERSION, Path(description="a version's number, `head` or `base`", examples=["head"])]


@router.get("", summary="List versions, newest first", responses=responses(INVALID, UNAVAILABLE))
def list_versions(server: State, query: Annotated[VersionQuery, Query()], response: Response) -> Page[VersionOut]:
    """Every published version; `next` is the cursor of the older ones."""
    before = decode_position(query.cursor)
    with server.store.read() as connection:
        head = heads.read(connection)
        rows = versions.read_page(connection, limit=query.limit + 1, before=before)
        page = rows[: query.limit]
        items = [_out(connection, version, head.version) for version in page]
    next_cursor = encode_position(page[-1].number) if len(rows) > query.limit else None
    if next_cursor is not None:
        response.headers["Link"] = next_link("/versions", limit=query.limit, cursor=next_cursor, filters={})
    return Page[VersionOut](items=items, next=next_cursor)


@router.get("/{number}", summary="Read a version", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_version(server: State, number: NumberOrHead) -> VersionOut:
    """A version. A collected version has no checkpoint any more, but its row can still be read."""
    return _read(server, number)


@router.get(
    "/{number}/bases",
    summary="Read how a version's interventions are used",
    responses=responses(NOT_FOUND, GONE, INVALID, CORRUPT, UNAVAILABLE),
)
async def get_bases(server: State, number: NumberOrHead) -> BasesOut:
    """The mean gate of each basis on edits, on their rephrases and on unrelated text (the BaFT paper's figure 2)."""
    version = await run_in_threadpool(_read, server, number)
    usages = await run_in_threadpool(
        measure_basis_use, server.lifecycle, server.get_neutral, server.serving.view_of, version.number
    )
    return BasesOut.of(version.number, usages)


def _read(server: ServerState, number: str) -> VersionOut:
    with server.store.read() as connection:
        head = heads.read(connection).version
        version = {"head": head, "base": server.base_version}[number] if not number.isdigit() else int(number)
        return _out(connection, versions.get(connection, version), head)


def _out(connection: Connection, version: Version, head: int) -> VersionOut:
    same = ("number", "parent", "digest", "edits_counted", "window", "created_at", "author", "reason", "restores", "pinned")
    return VersionOut(
        **{name: getattr(version, name) for name in same},
        base=version.base_name or "",
        kind=str(version.kind),
        status=str(version.status),
        scores=dict(version.scores),
        neutral_sentences=version.neutral_sentences,
        head=version.number == head,
        stated=list(stated_edits.read_ids(connection, version.number)),
        **read_details(connection, version),
    )
