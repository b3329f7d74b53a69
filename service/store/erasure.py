"""Finding and removing the rows that mention an edit, for a purge. The rows of live sets are the task of `versions`."""

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
from service.store.wording_search import Match, Wordings

ACTIVE = ("queued", "running")
IDS_PER_STATEMENT = 20  # ids that one statement searches
TEXT_FIELDS = ("prompt", "target", "answer", "ground_truth", "generation", "wanted", "opposite")  # fields of records


def enable_secure_delete(connection: Connection) -> None:
    """Make this connection to a SQLite file overwrite deleted data with zeros."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def has_active_job(connection: Connection, edit_ids: Collection[str]) -> bool:
    """Whether a queued or running job has any of these edits."""
    id_lists = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.status.in_(ACTIVE))).scalars()
    return any(not set(edit_ids).isdisjoint(job_ids) for job_ids in id_lists)


@dataclass(frozen=True)
class Mentions:
    """Other rows that contain the wordings of edits: evaluations by id, and prompts of the reservoir by lot.

    `uncertain`: the number of rows that contain a short wording among other words, which proves nothing.
    """

    evals: tuple[str, ...] = ()
    lots: tuple[int, ...] = ()
    uncertain: int = 0


def find_mentions(connection: Connection, edit_ids: Collection[str]) -> Mentions:
    """Search the wordings of edits in evaluations and in the reservoir.

    The search reads many rows and changes none, so it runs before the transaction that makes writers wait.
    """
    wordings = Wordings(_texts_of(connection, edit_ids))
    prompts = reservoir.find_matches(connection, wordings)
    evals: dict[str, Match] = {}
    for eval_id in connection.execute(sa.select(t.evals.c.id)).scalars().all():
        row = connection.execute(sa.select(t.evals.c.request, t.evals.c.result).where(t.evals.c.id == eval_id)).one_or_none()
        texts = _texts_in(() if row is None else [row.request, row.result])
        evals[eval_id] = max((wordings.match(text) for text in texts), default=Match.NO)
    return Mentions(
        evals=tuple(eval_id for eval_id, match in evals.items() if match is Match.YES),
        lots=tuple(lot for lot, match in prompts.items() if match is Match.YES),
        uncertain=sum(match is Match.PERHAPS for match in (*evals.values(), *prompts.values())),
    )


def remove(connection: Connection, edit_ids: Collection[str], mentions: Mentions) -> int:
    """Delete edits and their mentions. Returns the number of deleted and changed rows. Their live set rows must be deleted
    before.

    Deleted: the edits, evaluations that name their ids, and the evaluations and prompts of `mentions`. Changed: idempotency keys,
    scores of versions, finished jobs and other edits lose the ids, and events of the edits keep only their type and time.
    """
    rows = _forget_keys(connection, edit_ids)
    rows += _delete_evals(connection, edit_ids, mentions.evals)
    rows += reservoir.remove(connection, mentions.lots)
    rows += _forget_in_jobs(connection, edit_ids)
    rows += _forget_in_scores(connection, edit_ids)
    for chunk in chunks(edit_ids):
        later = sa.update(t.edits).where(t.edits.c.supersedes.in_(chunk)).values(supersedes=None)
        # A superseded edit must name the newer edit, so the id of that edit stays.
        superseded = (t.edits.c.superseded_by.in_(chunk), t.edits.c.status != EditStatus.SUPERSEDED)
        earlier = sa.update(t.edits).where(*superseded).values(superseded_by=None)
        emptied = sa.update(t.events).where(t.events.c.edit_id.in_(chunk)).values(data={})
        deleted = sa.delete(t.edits).where(t.edits.c.id.in_(chunk))
        rows += sum(connection.execute(statement).rowcount for statement in (later, earlier, emptied, deleted))
    return rows


def _texts_of(connection: Connection, edit_ids: Collection[str]) -> list[str]:
    """The wordings of edits: their prompts and those of their probes."""
    texts: list[str] = []
    for chunk in chunks(edit_ids):
        for row in connection.execute(sa.select(t.edits.c.prompt, t.edits.c.probes).where(t.edits.c.id.in_(chunk))):
            texts += [row.prompt, *(probe["prompt"] for kind in PROBE_KINDS for probe in row.probes.get(kind, ()))]
    return texts


def _texts_in(value: Any, name: str = "") -> Iterator[str]:
    """Every question and answer text, anywhere in JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts_in(inner, key)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts_in(inner, name)
    elif isinstance(value, str) and name in TEXT_FIELDS:
        yield value


def _rows_with_ids(
    connection: Connection, column: sa.Column[Any], edit_ids: Collection[str], *selected: sa.Column[Any]
) -> Iterator[sa.Row[Any]]:
    """The selected columns of rows whose JSON `column` contains one of these ids as a string. No other text contains an id."""
    position = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    ids, rows = list(edit_ids), dict[sa.Row[Any], None]()
    for begin in range(0, len(ids), IDS_PER_STATEMENT):
        chunk = [sa.literal(json.dumps(edit_id), sa.Text) for edit_id in ids[begin : begin + IDS_PER_STATEMENT]]
        has_id = sa.or_(*(position(sa.cast(column, sa.Text), literal) > 0 for literal in chunk))
        rows |= dict.fromkeys(connection.execute(sa.select(*selected).where(has_id)))
    return iter(rows)


def _forget_keys(connection: Connection, ids: Collection[str]) -> int:
    """Remove ids of edits or evaluations from the answers of idempotency keys. The keys stay, because a batch may be repeated."""
    removed_ids, rows, keys = set(ids), 0, t.idempotency_keys.c
    for row in _rows_with_ids(connection, keys.answer, ids, keys.author, keys.key):
        rows += idempotency.forget(connection, author=row.author, key=row.key, ids=removed_ids)
    return rows


def _delete_evals(connection: Connection, edit_ids: Collection[str], mentioning: Collection[str]) -> int:
    eval_ids = dict.fromkeys(mentioning)
    for column in (t.evals.c.request, t.evals.c.result, t.evals.c.outcomes):
        eval_ids |= dict.fromkeys(eval_id for (eval_id,) in _rows_with_ids(connection, column, edit_ids, t.evals.c.id))
    rows = _forget_keys(connection, eval_ids)
    return rows + sum(
        connection.execute(sa.delete(t.evals).where(t.evals.c.id.in_(chunk))).rowcount for chunk in chunks(eval_ids)
    )


def _forget_in_jobs(connection: Connection, edit_ids: Collection[str]) -> int:
    """Remove ids from jobs. The jobs stay, because their publications are history."""
    removed_ids, rows = set(edit_ids), 0
    for (job_id,) in _rows_with_ids(connection, t.jobs.c.edit_ids, edit_ids, t.jobs.c.id):
        job_ids = connection.execute(sa.select(t.jobs.c.edit_ids).where(t.jobs.c.id == job_id)).scalar_one()
        kept = [edit_id for edit_id in job_ids if edit_id not in removed_ids]
        rows += connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(edit_ids=kept)).rowcount
    return rows


def _forget_in_scores(connection: Connection, edit_ids: Collection[str]) -> int:
    """Remove ids from the lost edits in the scores of versions."""
    removed_ids, rows = set(edit_ids), 0
    for (number,) in _rows_with_ids(connection, t.versions.c.scores, edit_ids, t.versions.c.number):
        is_version = t.versions.c.number == number
        scores = connection.execute(sa.select(t.versions.c.scores).where(is_version)).scalar_one()
        kept = [edit_id for edit_id in scores.get("lost", ()) if edit_id not in removed_ids]
        rows += connection.execute(sa.update(t.versions).where(is_version).values(scores={**scores, "lost": kept})).rowcount
    return rows
