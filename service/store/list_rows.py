"""Rows of lists: the short form of each edit or evaluation. The database itself cuts long texts, so that neither an answer nor
its memory grows with them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.deferral import Deferral
from service.domain.edit import Accept, EditStatus, ScopeRule
from service.store import evaluations
from service.store import tables as t
from service.store.edits import chunks, row_to_deferral

MAX_TEXT_CHARACTERS = 500  # of each text
_TEXTS = ("prompt", "target", "subject", "relation", "conflict_key", "error")
_COPIED = (
    "id",
    "seq",
    "supersedes",
    "superseded_by",
    "author",
    "created_at",
    "applied_at",
    "version",
    "accept",
    "accepted_anyway",
    "scope",
)
KINDS = ("reliability", "generality", "locality", "portability")
_EVAL = ("id", "version", "status", "about", "progress", "error", "author", "created_at", "started_at", "finished_at")


@dataclass(frozen=True, kw_only=True)
class ListedEdit:
    """An edit in short. `is_cut`: at least one of its texts is cut."""

    id: str
    seq: int
    status: EditStatus
    prompt: str
    target: str
    subject: str | None
    relation: str | None
    conflict_key: str | None
    method: str
    version: int | None
    error: str | None
    supersedes: str | None
    superseded_by: str | None
    author: str
    created_at: datetime
    applied_at: datetime | None
    accept: Accept
    accepted_anyway: bool
    scope: ScopeRule
    deferral: Deferral | None
    is_cut: bool


@dataclass(frozen=True, kw_only=True)
class ListedEval:
    """An evaluation in short. `scores` are the shares of right answers by kind, once it is done."""

    id: str
    version: int
    status: str
    about: Mapping[str, Any]
    scores: Mapping[str, float | None] | None
    progress: float
    error: str | None
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def read_edits_page(
    connection: Connection, *, statuses: Collection[EditStatus] = (), limit: int, before_seq: int | None = None
) -> list[ListedEdit]:
    """Edits before `before_seq`, in reverse order of submission."""
    select = _edits().order_by(t.edits.c.seq.desc()).limit(limit)
    if statuses:
        select = select.where(t.edits.c.status.in_([str(status) for status in statuses]))
    if before_seq is not None:
        select = select.where(t.edits.c.seq < before_seq)
    return [_edit(row) for row in connection.execute(select).mappings()]


def read_edits_by_id(connection: Connection, edit_ids: Collection[str]) -> dict[str, ListedEdit]:
    """Edits by their ids; ids without a row are left out."""
    listed: dict[str, ListedEdit] = {}
    for chunk in chunks(edit_ids):
        listed |= {row["id"]: _edit(row) for row in connection.execute(_edits().where(t.edits.c.id.in_(chunk))).mappings()}
    return listed


def read_evals_page(
    connection: Connection,
    *,
    limit: int,
    version: int | None = None,
    status: str | None = None,
    before: str | None = None,
) -> list[ListedEval]:
    """Evaluations older than the one with the id `before`, newest first. Raises NotFound if there is no such evaluation."""
    scores = (t.evals.c.result[("greedy", kind, "score")].as_float().label(kind) for kind in KINDS)
    select = sa.select(*(t.evals.c[name] for name in _EVAL), *scores)
    select = select.order_by(t.evals.c.created_at.desc(), t.evals.c.id.desc()).limit(limit)
    if version is not None:
        select = select.where(t.evals.c.version == version)
    if status is not None:
        select = select.where(t.evals.c.status == status)
    if before is not None:
        at = evaluations.read_created_at(connection, before)
        select = select.where(sa.tuple_(t.evals.c.created_at, t.evals.c.id) < sa.tuple_(sa.literal(at, t.UtcDateTime), before))
    return [_evaluation(row) for row in connection.execute(select).mappings()]


def _edits() -> sa.Select[Any]:
    texts = (sa.func.substr(t.edits.c[name], 1, MAX_TEXT_CHARACTERS + 1).label(name) for name in _TEXTS)
    return sa.select(*(t.edits.c[name] for name in _COPIED), t.edits.c.status, t.edits.c.method, t.edits.c.deferral, *texts)


def _edit(row: RowMapping) -> ListedEdit:
    texts = {name: row[name] and row[name][:MAX_TEXT_CHARACTERS] for name in _TEXTS}
    return ListedEdit(
        **{name: row[name] for name in _COPIED},
        **texts,
        status=EditStatus(row["status"]),
        method=row["method"],
        deferral=row_to_deferral(row["deferral"]),
        is_cut=any(texts[name] != row[name] for name in _TEXTS),
    )


def _evaluation(row: RowMapping) -> ListedEval:
    scores = {kind: row[kind] for kind in KINDS} if row["status"] == "done" else None
    return ListedEval(**{name: row[name] for name in _EVAL}, scores=scores)
