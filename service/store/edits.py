"""Rows of edits: read as `Edit`, written by lifecycle verbs. Every change of a status passes the table of transitions."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain import transitions
from service.domain.edit import Edit, EditRequest, EditStatus, Method, Probe
from service.domain.errors import Conflict, NotFound
from service.domain.liveset import LiveItem
from service.store import tables as t

PROBE_KINDS = ("rephrases", "locality", "portability")
CHUNK = 400  # ids in one IN (…): SQLite's variables are bounded


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a transaction makes of one edit."""

    edit_id: str
    status: EditStatus
    superseded_by: str | None = None
    supersedes: str | None = None
    error: str | None = None
    version: int | None = None  # the version that holds it, for a live status
    report: Mapping[str, Any] | None = None


def key_digest(request: EditRequest) -> str:
    """The conflict key as 64 hexadecimal digits."""
    return hashlib.sha256(request.key.encode()).hexdigest()


def insert(
    connection: Connection, requests: Sequence[tuple[str, int, EditStatus, EditRequest]], *, author: str, now: datetime
) -> None:
    """Write accepted edits, each with its id, sequence number and first status."""
    if requests:
        connection.execute(sa.insert(t.edits), [_row(*entry, author=author, now=now) for entry in requests])


def get(connection: Connection, edit_id: str) -> Edit:
    """One edit. Raises NotFound."""
    row = connection.execute(sa.select(t.edits).where(t.edits.c.id == edit_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no edit with this id", field="id")
    return edit_of(row)


def many(connection: Connection, edit_ids: Collection[str]) -> list[Edit]:
    """Edits by id, in order of acceptance; ids without a row are left out."""
    ids, found = list(edit_ids), []
    for begin in range(0, len(ids), CHUNK):
        rows = connection.execute(sa.select(t.edits).where(t.edits.c.id.in_(ids[begin : begin + CHUNK]))).mappings()
        found += [edit_of(row) for row in rows]
    return sorted(found, key=lambda edit: edit.seq)


def page(
    connection: Connection,
    *,
    statuses: Collection[EditStatus] = (),
    limit: int,
    after_seq: int | None = None,
    newest_first: bool = False,
) -> list[Edit]:
    """Edits in order of acceptance, beyond `after_seq` in the direction of reading."""
    select = sa.select(t.edits).limit(limit)
    if statuses:
        select = select.where(t.edits.c.status.in_([str(status) for status in statuses]))
    if after_seq is not None:
        select = select.where(t.edits.c.seq < after_seq if newest_first else t.edits.c.seq > after_seq)
    select = select.order_by(t.edits.c.seq.desc() if newest_first else t.edits.c.seq)
    return [edit_of(row) for row in connection.execute(select).mappings()]


def counts(connection: Connection) -> dict[str, int]:
    """How many edits have each status; states that none has are 0."""
    rows = connection.execute(sa.select(t.edits.c.status, sa.func.count()).group_by(t.edits.c.status)).all()
    return {str(status): 0 for status in EditStatus} | dict(tuple(row) for row in rows)


def latest_of_key(connection: Connection, digest: str) -> Edit | None:
    """The edit accepted last of those with a conflict key that are live or on their way, unless it is being taken back."""
    standing = ("queued", "applying", "applied", "consolidated", "deferred")
    select = (
        sa.select(t.edits).where(t.edits.c.key_digest == digest, t.edits.c.status.in_(standing)).order_by(t.edits.c.seq.desc())
    )
    row = connection.execute(select.limit(1)).mappings().one_or_none()
    return None if row is None or row["retract_asked_at"] is not None else edit_of(row)


def deferred_before(connection: Connection, newer: Sequence[LiveItem]) -> dict[str, str]:
    """Deferred edits that an edit of `newer` makes pointless: same key, accepted earlier ({old id: new id})."""
    by_key = {item.key: item for item in newer}
    select = sa.select(t.edits.c.id, t.edits.c.key_digest, t.edits.c.seq).where(t.edits.c.status == EditStatus.DEFERRED)
    rows = connection.execute(select).all()
    return {
        row.id: by_key[row.key_digest].edit_id
        for row in rows
        if row.key_digest in by_key and row.seq < by_key[row.key_digest].seq
    }


def items(connection: Connection, edit_ids: Collection[str]) -> list[LiveItem]:
    """Edits as the rules of the live set see them."""
    ids, found = list(edit_ids), []
    for begin in range(0, len(ids), CHUNK):
        select = sa.select(t.edits.c.id, t.edits.c.key_digest, t.edits.c.seq).where(t.edits.c.id.in_(ids[begin : begin + CHUNK]))
        found += [LiveItem(edit_id=row.id, key=row.key_digest, seq=row.seq) for row in connection.execute(select)]
    return sorted(found, key=lambda item: item.seq)


def retractions_pending(connection: Connection) -> dict[str, bool]:
    """Live edits that were asked to be taken back: {id: whether the edit before it shall be live again}."""
    select = sa.select(t.edits.c.id, t.edits.c.restore_previous).where(
        t.edits.c.retract_asked_at.is_not(None), t.edits.c.status != EditStatus.RETRACTED
    )
    return {row.id: row.restore_previous for row in connection.execute(select)}


def retracted(connection: Connection, edit_ids: Collection[str]) -> set[str]:
    """Those of the given edits that were taken back or asked to be."""
    ids, found = list(edit_ids), set()
    for begin in range(0, len(ids), CHUNK):
        some = ids[begin : begin + CHUNK]
        select = sa.select(t.edits.c.id).where(t.edits.c.id.in_(some), t.edits.c.retract_asked_at.is_not(None))
        found |= set(connection.execute(select).scalars())
    return found


def ask_retraction(connection: Connection, edit_id: str, *, restore_previous: bool, author: str, now: datetime) -> None:
    """Note that an edit shall be taken back, and by whom."""
    values = {"retract_asked_at": now, "retracted_by": author, "restore_previous": restore_previous}
    connection.execute(sa.update(t.edits).where(t.edits.c.id == edit_id).values(**values))


def change(connection: Connection, changes: Sequence[Change], *, now: datetime) -> None:
    """Make changes of status. Raises Conflict if one is not in the table of transitions; then nothing of the transaction may be
    kept.
    """
    for one in changes:
        values = _values(one, now)
        before = [str(status) for status in transitions.leads_to(one.status)]
        update = sa.update(t.edits).where(t.edits.c.id == one.edit_id, t.edits.c.status.in_(before)).values(**values)
        if connection.execute(update).rowcount != 1:
            raise Conflict(f"an edit cannot become {one.status} from the state it is in")


def add_probes(connection: Connection, edit: Edit, request: EditRequest) -> Edit:
    """Give an edit the probes of an identical request that it lacks; a new wording of the prompt becomes a rephrase."""
    probes = {}
    for kind in PROBE_KINDS:
        known: tuple[Probe, ...] = getattr(edit, kind)
        offered: tuple[Probe, ...] = getattr(request, kind)
        if kind == "rephrases" and request.prompt != edit.prompt:
            offered = (Probe(prompt=request.prompt, train=True), *offered)
        prompts = {probe.prompt for probe in known}
        probes[kind] = known + tuple(probe for probe in offered if probe.prompt not in prompts)
    if any(len(probes[kind]) > len(getattr(edit, kind)) for kind in PROBE_KINDS):
        values = {kind: [_probe_row(probe) for probe in probes[kind]] for kind in PROBE_KINDS}
        connection.execute(sa.update(t.edits).where(t.edits.c.id == edit.id).values(probes=values, scores_due=True))
    return get(connection, edit.id)


def next_to_score(connection: Connection) -> Edit | None:
    """A live edit whose probes have not been asked since it was published."""
    select = sa.select(t.edits).where(t.edits.c.scores_due, t.edits.c.status.in_(("applied", "consolidated")))
    row = connection.execute(select.order_by(t.edits.c.seq).limit(1)).mappings().one_or_none()
    return None if row is None else edit_of(row)


def fill_scores(connection: Connection, edit_id: str, scores: Mapping[str, Any]) -> None:
    """Put the scores by probe kind into the report of an edit."""
    report = connection.execute(sa.select(t.edits.c.report).where(t.edits.c.id == edit_id)).scalar_one()
    values = {"report": {**(report or {}), **scores}, "scores_due": False}
    connection.execute(sa.update(t.edits).where(t.edits.c.id == edit_id).values(**values))


def edit_of(row: RowMapping) -> Edit:
    """A row as the domain knows it."""
    probes: dict[str, Any] = {kind: tuple(Probe(**probe) for probe in row["probes"].get(kind, ())) for kind in PROBE_KINDS}
    same = ("id", "seq", "prompt", "target", "subject", "relation", "ground_truth", "conflict_key", "metadata", "author")
    later = ("created_at", "applied_at", "version", "report", "supersedes", "superseded_by", "error")
    return Edit(
        status=EditStatus(row["status"]),
        method=Method(row["method"]),
        surfaces=tuple(row["surfaces"]),
        **probes,
        **{name: row[name] for name in same + later},
    )


def _row(edit_id: str, seq: int, status: EditStatus, request: EditRequest, *, author: str, now: datetime) -> dict[str, Any]:
    same = ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key")
    return {name: getattr(request, name) for name in same} | {
        "id": edit_id,
        "seq": seq,
        "status": str(status),
        "key_digest": key_digest(request),
        "method": str(request.method),
        "surfaces": list(request.surfaces),
        "probes": {kind: [_probe_row(probe) for probe in getattr(request, kind)] for kind in PROBE_KINDS},
        "metadata": dict(request.metadata),
        "author": author,
        "created_at": now,
        "scores_due": False,
        "restore_previous": False,
    }


def _probe_row(probe: Probe) -> dict[str, Any]:
    return {"prompt": probe.prompt, "answer": probe.answer, "train": probe.train, "group": probe.group}


def _values(one: Change, now: datetime) -> dict[str, Any]:
    values: dict[str, Any] = {"status": str(one.status), "superseded_by": one.superseded_by, "error": one.error}
    if one.supersedes is not None:
        values["supersedes"] = one.supersedes
    if one.report is not None:
        values["report"] = dict(one.report)
    if one.status.is_live:
        values["version"] = sa.func.coalesce(t.edits.c.version, one.version)
        values["applied_at"] = sa.func.coalesce(t.edits.c.applied_at, sa.literal(now, t.edits.c.applied_at.type))
        values["scores_due"] = True
    return values
