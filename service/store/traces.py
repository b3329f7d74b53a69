"""Where rows beside an edit's own speak of it, and how they cease to: for a purge. Live sets are `versions`' business."""

import json
from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.edit import EditStatus
from service.store import reservoir
from service.store import tables as t
from service.store.edits import chunks

ACTIVE = ("queued", "running")
NEEDLES = 20  # texts looked for by one statement


def overwrite_what_is_deleted(connection: Connection) -> None:
    """From now on this connection to a SQLite file writes zeros over what it deletes."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def works_on(connection: Connection, edit_ids: Collection[str]) -> bool:
    """Whether a job that is queued or running was given any of these edits."""
    found = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.status.in_(ACTIVE))).scalars()
    return any(not set(edit_ids).isdisjoint(given) for given in found)


def texts_of(connection: Connection, edit_ids: Collection[str]) -> list[str]:
    """The wordings in which edits ask: their prompts and rephrases."""
    texts: list[str] = []
    for some in chunks(edit_ids):
        for row in connection.execute(sa.select(t.edits.c.prompt, t.edits.c.probes).where(t.edits.c.id.in_(some))):
            texts += [row.prompt, *(probe["prompt"] for probe in row.probes.get("rephrases", ()))]
    return list(dict.fromkeys(texts))


def remove(connection: Connection, edit_ids: Collection[str], texts: Collection[str]) -> int:
    """Delete edits and what refers to them; how many rows went or were changed. Their rows of live sets must be gone already.

    Deleted: their idempotency keys, evaluations that name them or hold one of the `texts`, prompts of the reservoir with one,
    and the edits. Changed: finished jobs and later or earlier edits forget them, and their events only say what happened when.
    """
    rows = _delete_where(connection, t.idempotency_keys, (t.idempotency_keys.c.answer,), edit_ids)
    spoken = (t.evals.c.request, t.evals.c.result, t.evals.c.outcomes)
    rows += _delete_where(connection, t.evals, spoken, [*edit_ids, *texts])
    rows += reservoir.forget(connection, list(texts))
    rows += _forget_in_jobs(connection, edit_ids)
    for some in chunks(edit_ids):
        later = sa.update(t.edits).where(t.edits.c.supersedes.in_(some)).values(supersedes=None)
        # A superseded edit has to say by which: of that one the id alone is left.
        named = (t.edits.c.superseded_by.in_(some), t.edits.c.status != EditStatus.SUPERSEDED)
        earlier = sa.update(t.edits).where(*named).values(superseded_by=None)
        silent = sa.update(t.events).where(t.events.c.edit_id.in_(some)).values(data={})
        gone = sa.delete(t.edits).where(t.edits.c.id.in_(some))
        rows += sum(connection.execute(statement).rowcount for statement in (later, earlier, silent, gone))
    return rows


def _delete_where(connection: Connection, table: sa.Table, columns: Iterable[sa.Column[object]], texts: Collection[str]) -> int:
    """Delete rows that have one of the texts as a whole string anywhere in one of their JSON columns."""
    needles, deleted = list(texts), 0
    columns = list(columns)
    for begin in range(0, len(needles), NEEDLES):
        some = needles[begin : begin + NEEDLES]
        holds = sa.or_(*(_holds(connection, column, text) for column in columns for text in some))
        deleted += connection.execute(sa.delete(table).where(holds)).rowcount
    return deleted


def _holds(connection: Connection, column: sa.Column[object], text: str) -> sa.ColumnElement[bool]:
    """Whether JSON, which both databases keep as it was written, has a string."""
    place = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    return place(sa.cast(column, sa.Text), sa.literal(json.dumps(text), sa.Text)) > 0


def _forget_in_jobs(connection: Connection, edit_ids: Collection[str]) -> int:
    """Take ids out of the jobs that were given them; the jobs stay, for what they published is history."""
    ids, named = list(edit_ids), set[str]()
    for begin in range(0, len(ids), NEEDLES):
        holds = sa.or_(*(_holds(connection, t.jobs.c.edit_ids, edit_id) for edit_id in ids[begin : begin + NEEDLES]))
        named |= set(connection.execute(sa.select(t.jobs.c.id).where(holds)).scalars())
    gone = set(ids)
    for job_id in sorted(named):
        given = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.id == job_id)).scalar_one()
        kept = [edit_id for edit_id in given if edit_id not in gone]
        connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(edit_ids=kept))
    return len(named)
