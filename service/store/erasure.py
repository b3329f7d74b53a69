"""Where rows beside an edit's own speak of it, and how they cease to: for a purge. Live sets are `versions`' business."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.edit import EditStatus
from service.store import idempotency, reservoir
from service.store import tables as t
from service.store.edits import PROBE_KINDS, chunks
from service.store.wordings import Match, Wordings

ACTIVE = ("queued", "running")
IDS_PER_STATEMENT = 20  # ids looked for by one statement
TEXT_FIELDS = ("prompt", "target", "answer", "ground_truth", "generation", "wanted", "opposite")  # fields of records


def enable_secure_delete(connection: Connection) -> None:
    """From now on this connection to a SQLite file writes zeros over what it deletes."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def has_active_job(connection: Connection, edit_ids: Collection[str]) -> bool:
    """Whether a job that is queued or running was given any of these edits."""
    found = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.status.in_(ACTIVE))).scalars()
    return any(not set(edit_ids).isdisjoint(given) for given in found)


@dataclass(frozen=True)
class Mentions:
    """What beside their own rows speaks of edits in their words: evaluations by id, and prompts of the reservoir by lot. Of
    `doubtful` ones nobody can tell: a short wording stands in them among other words.
    """

    evals: tuple[str, ...] = ()
    lots: tuple[int, ...] = ()
    doubtful: int = 0


def find_mentions(connection: Connection, edit_ids: Collection[str]) -> Mentions:
    """Look for the words of edits. It reads much and changes nothing, so it is done before anybody has to wait."""
    wordings = Wordings(_texts_of(connection, edit_ids))
    asked = reservoir.find_matches(connection, wordings)
    measured: dict[str, Match] = {}
    for eval_id in connection.execute(sa.select(t.evals.c.id)).scalars().all():
        row = connection.execute(sa.select(t.evals.c.request, t.evals.c.result).where(t.evals.c.id == eval_id)).one_or_none()
        texts = _texts_in(() if row is None else [row.request, row.result])
        measured[eval_id] = max((wordings.match(text) for text in texts), default=Match.NO)
    return Mentions(
        evals=tuple(eval_id for eval_id, match in measured.items() if match is Match.YES),
        lots=tuple(lot for lot, match in asked.items() if match is Match.YES),
        doubtful=sum(match is Match.PERHAPS for match in (*measured.values(), *asked.values())),
    )


def remove(connection: Connection, edit_ids: Collection[str], found: Mentions) -> int:
    """Delete edits and what refers to them; how many rows went or were changed. Their rows of live sets must be gone already.

    Deleted: evaluations that name them, those and the prompts of the reservoir that were `found` to speak of them, and the edits.
    Changed: idempotency keys, scores of versions, finished jobs and later or earlier edits forget them, and their events only say
    what happened when.
    """
    rows = _forget_keys(connection, edit_ids)
    rows += _delete_evals(connection, edit_ids, found.evals)
    rows += reservoir.remove(connection, found.lots)
    rows += _forget_in_jobs(connection, edit_ids)
    rows += _forget_in_scores(connection, edit_ids)
    for some in chunks(edit_ids):
        later = sa.update(t.edits).where(t.edits.c.supersedes.in_(some)).values(supersedes=None)
        # A superseded edit has to say by which: of that one the id alone is left.
        named = (t.edits.c.superseded_by.in_(some), t.edits.c.status != EditStatus.SUPERSEDED)
        earlier = sa.update(t.edits).where(*named).values(superseded_by=None)
        silent = sa.update(t.events).where(t.events.c.edit_id.in_(some)).values(data={})
        gone = sa.delete(t.edits).where(t.edits.c.id.in_(some))
        rows += sum(connection.execute(statement).rowcount for statement in (later, earlier, silent, gone))
    return rows


def _texts_of(connection: Connection, edit_ids: Collection[str]) -> list[str]:
    """The wordings of edits: their prompts and those of their probes."""
    texts: list[str] = []
    for some in chunks(edit_ids):
        for row in connection.execute(sa.select(t.edits.c.prompt, t.edits.c.probes).where(t.edits.c.id.in_(some))):
            texts += [row.prompt, *(probe["prompt"] for kind in PROBE_KINDS for probe in row.probes.get(kind, ()))]
    return texts


def _texts_in(value: Any, name: str = "") -> Iterator[str]:
    """Every text that somebody was asked or that was answered, anywhere in JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts_in(inner, key)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts_in(inner, name)
    elif isinstance(value, str) and name in TEXT_FIELDS:
        yield value


def _rows_with_ids(
    connection: Connection, column: sa.Column[Any], edit_ids: Collection[str], *wanted: sa.Column[Any]
) -> Iterator[sa.Row[Any]]:
    """The wanted columns of rows in whose JSON one of these ids is a string. Ids are found in no other words."""
    place = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    ids, found = list(edit_ids), dict[sa.Row[Any], None]()
    for begin in range(0, len(ids), IDS_PER_STATEMENT):
        some = [sa.literal(json.dumps(edit_id), sa.Text) for edit_id in ids[begin : begin + IDS_PER_STATEMENT]]
        holds = sa.or_(*(place(sa.cast(column, sa.Text), one) > 0 for one in some))
        found |= dict.fromkeys(connection.execute(sa.select(*wanted).where(holds)))
    return iter(found)


def _forget_keys(connection: Connection, ids: Collection[str]) -> int:
    """Take ids of edits or evaluations out of what idempotency keys were answered with. The keys stay, for a batch may be sent
    again.
    """
    gone, rows, keys = set(ids), 0, t.idempotency_keys.c
    for row in _rows_with_ids(connection, keys.answer, ids, keys.author, keys.key):
        rows += idempotency.forget(connection, author=row.author, key=row.key, ids=gone)
    return rows


def _delete_evals(connection: Connection, edit_ids: Collection[str], found: Collection[str]) -> int:
    going = dict.fromkeys(found)
    for column in (t.evals.c.request, t.evals.c.result, t.evals.c.outcomes):
        going |= dict.fromkeys(eval_id for (eval_id,) in _rows_with_ids(connection, column, edit_ids, t.evals.c.id))
    rows = _forget_keys(connection, going)
    return rows + sum(connection.execute(sa.delete(t.evals).where(t.evals.c.id.in_(some))).rowcount for some in chunks(going))


def _forget_in_jobs(connection: Connection, edit_ids: Collection[str]) -> int:
    """Take ids out of the jobs that were given them; the jobs stay, for what they published is history."""
    gone, rows = set(edit_ids), 0
    for (job_id,) in _rows_with_ids(connection, t.jobs.c.edit_ids, edit_ids, t.jobs.c.id):
        given = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.id == job_id)).scalar_one()
        kept = [edit_id for edit_id in given if edit_id not in gone]
        rows += connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(edit_ids=kept)).rowcount
    return rows


def _forget_in_scores(connection: Connection, edit_ids: Collection[str]) -> int:
    """Take ids out of what versions are known not to answer."""
    gone, rows = set(edit_ids), 0
    for (number,) in _rows_with_ids(connection, t.versions.c.scores, edit_ids, t.versions.c.number):
        one = t.versions.c.number == number
        scores = connection.execute(sa.select(t.versions.c.scores).where(one)).scalar_one()
        kept = [edit_id for edit_id in scores.get("lost", ()) if edit_id not in gone]
        rows += connection.execute(sa.update(t.versions).where(one).values(scores={**scores, "lost": kept})).rowcount
    return rows
