"""Rows of edits, read as `Edit`. Every change of a status passes the table of transitions."""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain import transitions
from service.domain.deferral import Deferral
from service.domain.edit import Edit, EditRequest, EditStatus, Probe, normalise
from service.domain.errors import Conflict, NotFound
from service.domain.fit_queue import QueuedEdit
from service.domain.liveset import LiveItem
from service.store import tables as t

PROBE_KINDS = ("rephrases", "locality", "portability")
CHUNK = 400  # ids in one IN (…), because SQLite bounds the variables of a statement


@dataclass(frozen=True, kw_only=True)
class StatusChange:
    """A change of the status of one edit."""

    edit_id: str
    status: EditStatus
    superseded_by: str | None = None
    supersedes: str | None = None
    error: str | None = None
    version: int | None = None  # the version that holds it, for a live status
    report: Mapping[str, Any] | None = None
    deferral: Deferral | None = None  # for `deferred`
    accepted_anyway: bool | None = None  # for a live status; None: as it is


@dataclass(frozen=True)
class AuthoredEdit:
    """The status of an edit of one author. `is_retraction_requested`: its retraction was requested."""

    edit_id: str
    seq: int
    status: EditStatus
    is_retraction_requested: bool


def key_digest(request: EditRequest) -> str:
    """The conflict key as 64 hexadecimal digits."""
    return hashlib.sha256(request.key.encode()).hexdigest()


def insert(
    connection: Connection,
    requests: Sequence[tuple[str, int, EditStatus, EditRequest]],
    *,
    author: str,
    now: datetime,
    tokens: Mapping[str, int] | None = None,
    deferral: Deferral | None = None,
) -> None:
    """Write accepted edits, each with its id, sequence number and first status. `tokens`: the cost of their fits by id.
    `deferral`: of those that are deferred from the first.
    """
    costs = tokens or {}
    waiting = None if deferral is None else _deferral_row(deferral)
    if requests:
        rows = [
            _row(*entry, author=author, now=now)
            | {"tokens": costs.get(entry[0], 0), "deferral": waiting if entry[2] is EditStatus.DEFERRED else None}
            for entry in requests
        ]
        connection.execute(sa.insert(t.edits), rows)


def get(connection: Connection, edit_id: str) -> Edit:
    """One edit. Raises NotFound."""
    row = connection.execute(sa.select(t.edits).where(t.edits.c.id == edit_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no edit with this id", field="id")
    return row_to_edit(row)


def read_status(connection: Connection, edit_id: str) -> EditStatus:
    """The status of one edit, without its texts. Raises NotFound."""
    status = connection.execute(sa.select(t.edits.c.status).where(t.edits.c.id == edit_id)).scalar_one_or_none()
    if status is None:
        raise NotFound("there is no edit with this id", field="id")
    return EditStatus(status)


def read_many(connection: Connection, edit_ids: Collection[str]) -> list[Edit]:
    """Edits by id, in order of submission; ids without a row are left out."""
    found = []
    for chunk in chunks(edit_ids):
        found += [row_to_edit(row) for row in connection.execute(sa.select(t.edits).where(t.edits.c.id.in_(chunk))).mappings()]
    return sorted(found, key=lambda edit: edit.seq)


def read_statuses(connection: Connection, edit_ids: Collection[str]) -> dict[str, EditStatus]:
    """The statuses of edits by id, without their texts; ids without a row are left out."""
    found: dict[str, EditStatus] = {}
    for chunk in chunks(edit_ids):
        rows = connection.execute(sa.select(t.edits.c.id, t.edits.c.status).where(t.edits.c.id.in_(chunk)))
        found |= {row.id: EditStatus(row.status) for row in rows}
    return found


def read_requests(connection: Connection, edit_ids: Collection[str]) -> list[EditRequest]:
    """The requests of edits without their probes, in order of submission."""
    return list(read_requests_by_id(connection, edit_ids).values())


def read_requests_by_id(connection: Connection, edit_ids: Collection[str]) -> dict[str, EditRequest]:
    """The requests of edits without their probes by id, in order of submission."""
    names = ("prompt", "target", "subject", "relation", "conflict_key", "method", "scope")
    found: list[tuple[int, str, EditRequest]] = []
    for chunk in chunks(edit_ids):
        columns = (t.edits.c[name] for name in ("seq", "id", "aliases", *names))
        for row in connection.execute(sa.select(*columns).where(t.edits.c.id.in_(chunk))).mappings():
            request = EditRequest(**{name: row[name] for name in names}, aliases=tuple(row["aliases"]))
            found.append((row["seq"], row["id"], request))
    return {edit_id: request for _, edit_id, request in sorted(found, key=lambda one: one[0])}


def read_texts_after(connection: Connection, seq: int) -> Iterator[tuple[int, str, str]]:
    """The sequence number, the id, and the prompt, subject and aliases as one text, of every edit after `seq`, in order."""
    columns = (t.edits.c.seq, t.edits.c.id, t.edits.c.prompt, t.edits.c.subject, t.edits.c.aliases)
    for row in connection.execute(sa.select(*columns).where(t.edits.c.seq > seq).order_by(t.edits.c.seq)):
        yield row.seq, row.id, "\n".join((row.prompt, *filter(None, (row.subject,)), *row.aliases))


def read_page(
    connection: Connection, *, statuses: Collection[EditStatus] = (), limit: int, after_seq: int | None = None
) -> list[Edit]:
    """Edits in order of submission, after `after_seq`."""
    select = sa.select(t.edits).limit(limit)
    if statuses:
        select = select.where(t.edits.c.status.in_([str(status) for status in statuses]))
    if after_seq is not None:
        select = select.where(t.edits.c.seq > after_seq)
    return [row_to_edit(row) for row in connection.execute(select.order_by(t.edits.c.seq)).mappings()]


def read_queue(connection: Connection, *, most: int, large: int) -> tuple[list[QueuedEdit], list[QueuedEdit]]:
    """The queued edits in order of submission: at most `most` small ones, and `most` large ones of more than `large` tokens."""
    waits, is_large = t.edits.c.status == EditStatus.QUEUED, t.edits.c.tokens > large
    columns = (t.edits.c.id, t.edits.c.key_digest, t.edits.c.seq, t.edits.c.tokens, t.edits.c.accept)
    select = sa.select(*columns).where(waits)
    small, heavy = (
        [QueuedEdit(*row) for row in connection.execute(select.where(size).order_by(t.edits.c.seq).limit(most))]
        for size in (sa.not_(is_large), is_large)
    )
    return small, heavy


def read_newest_seq(connection: Connection, edit_ids: Collection[str]) -> int | None:
    """The sequence number of the newest of some edits; None if none of them has a row."""
    newest: int | None = connection.execute(sa.select(sa.func.max(t.edits.c.seq)).where(t.edits.c.id.in_(edit_ids))).scalar_one()
    return newest


def sum_tokens(connection: Connection, edit_ids: Collection[str]) -> int:
    """The sum of the tokens of single fits of these edits."""
    total = sa.func.coalesce(sa.func.sum(t.edits.c.tokens), 0)
    return sum(
        int(connection.execute(sa.select(total).where(t.edits.c.id.in_(chunk))).scalar_one()) for chunk in chunks(edit_ids)
    )


def count_by_status(connection: Connection) -> dict[str, int]:
    """The number of edits by status; 0 for a status without edits."""
    rows = connection.execute(sa.select(t.edits.c.status, sa.func.count()).group_by(t.edits.c.status)).all()
    return {str(status): 0 for status in EditStatus} | dict(tuple(row) for row in rows)


def count(connection: Connection, status: EditStatus) -> int:
    """The number of edits with one status, without counting the others."""
    return int(connection.execute(sa.select(sa.func.count()).where(t.edits.c.status == status)).scalar_one())


def read_count_and_oldest(connection: Connection, status: EditStatus) -> tuple[int, datetime | None]:
    """The number of edits with one status, and the time when the oldest of them was posted."""
    select = sa.select(sa.func.count(), sa.func.min(t.edits.c.created_at)).where(t.edits.c.status == status)
    counted, oldest = connection.execute(select).one()
    return counted, oldest


def read_ids(connection: Connection, status: EditStatus) -> Sequence[str]:
    """The ids of the edits with one status, in no order."""
    return connection.execute(sa.select(t.edits.c.id).where(t.edits.c.status == status)).scalars().all()


def read_first_applied_at(connection: Connection, edit_ids: Collection[str]) -> datetime | None:
    """The earliest time at which one of these edits was applied, or posted if it never was; None for no edits."""
    since = sa.func.coalesce(t.edits.c.applied_at, t.edits.c.created_at)
    firsts = [
        connection.execute(sa.select(sa.func.min(since)).where(t.edits.c.id.in_(chunk))).scalar() for chunk in chunks(edit_ids)
    ]
    return min((at for at in firsts if at is not None), default=None)


def count_new_since(connection: Connection, edit_ids: Collection[str], at: datetime) -> int:
    """The number of these edits that were applied after `at`, plus the number of deferred edits posted after it."""
    deferred = (t.edits.c.status == EditStatus.DEFERRED, t.edits.c.created_at > at)
    counted: int = connection.execute(sa.select(sa.func.count()).where(*deferred)).scalar_one()
    for chunk in chunks(edit_ids):
        applied = (t.edits.c.id.in_(chunk), t.edits.c.applied_at > at)
        counted += connection.execute(sa.select(sa.func.count()).where(*applied)).scalar_one()
    return counted


def check_all_have_status(connection: Connection, edit_ids: Collection[str], statuses: Collection[EditStatus]) -> bool:
    """Whether each of these edits has one of the statuses, and no retraction of them was requested."""
    for chunk in chunks(edit_ids):
        # By id alone: with a condition on the status SQLite would scan all edits of the status, once a chunk.
        select = sa.select(t.edits.c.status, t.edits.c.retract_asked_at).where(t.edits.c.id.in_(chunk))
        found = connection.execute(select).all()
        if len(found) != len(chunk) or any(row.status not in statuses or row.retract_asked_at is not None for row in found):
            return False
    return True


def find_latest_of_key(connection: Connection, digest: str) -> Edit | None:
    """The last accepted edit of a conflict key that is live, queued, applying or deferred; None if it is being retracted."""
    candidates = ("queued", "applying", "applied", "consolidated", "deferred")
    select = (
        sa.select(t.edits).where(t.edits.c.key_digest == digest, t.edits.c.status.in_(candidates)).order_by(t.edits.c.seq.desc())
    )
    row = connection.execute(select.limit(1)).mappings().one_or_none()
    return None if row is None or row["retract_asked_at"] is not None else row_to_edit(row)


def find_outdated_deferred(connection: Connection, newer: Sequence[LiveItem]) -> dict[str, str]:
    """Deferred edits that an edit of `newer` supersedes: same key, accepted earlier ({old id: new id})."""
    by_key = {item.key: item for item in newer}
    select = sa.select(t.edits.c.id, t.edits.c.key_digest, t.edits.c.seq).where(t.edits.c.status == EditStatus.DEFERRED)
    rows = connection.execute(select).all()
    return {
        row.id: by_key[row.key_digest].edit_id
        for row in rows
        if row.key_digest in by_key and row.seq < by_key[row.key_digest].seq
    }


def find_accepted_anyway(connection: Connection, edit_ids: Collection[str]) -> set[str]:
    """The ids of these edits that were published although acceptance refused them. Few edits of a store were."""
    overruled = connection.execute(sa.select(t.edits.c.id).where(t.edits.c.accepted_anyway)).scalars()
    return set(overruled) & set(edit_ids)


def read_deferrals(connection: Connection, edit_ids: Collection[str]) -> dict[str, Deferral]:
    """The last deferrals of these edits by id, of those that have one."""
    found: dict[str, Deferral] = {}
    for chunk in chunks(edit_ids):
        select = sa.select(t.edits.c.id, t.edits.c.deferral).where(t.edits.c.id.in_(chunk))
        rows = ((row.id, row_to_deferral(row.deferral)) for row in connection.execute(select))
        found |= {edit_id: deferral for edit_id, deferral in rows if deferral is not None}
    return found


def row_to_deferral(stored: Mapping[str, Any] | None) -> Deferral | None:
    """A deferral as the column holds it."""
    if stored is None:
        return None
    at = stored["tried_at"]
    return Deferral(**{**stored, "tried_at": None if at is None else datetime.fromisoformat(at)})


def read_items(connection: Connection, edit_ids: Collection[str]) -> list[LiveItem]:
    """Edits as items of a live set, in order of submission."""
    found = []
    for chunk in chunks(edit_ids):
        select = sa.select(t.edits.c.id, t.edits.c.key_digest, t.edits.c.seq).where(t.edits.c.id.in_(chunk))
        found += [LiveItem(edit_id=row.id, key=row.key_digest, seq=row.seq) for row in connection.execute(select)]
    return sorted(found, key=lambda item: item.seq)


def read_pending_retractions(connection: Connection) -> dict[str, bool]:
    """Edits with a requested and unfinished retraction: {id: whether the edit that it superseded becomes live again}."""
    select = sa.select(t.edits.c.id, t.edits.c.restore_previous).where(
        t.edits.c.retract_asked_at.is_not(None), t.edits.c.status != EditStatus.RETRACTED
    )
    return {row.id: row.restore_previous for row in connection.execute(select)}


def find_retracted(connection: Connection, edit_ids: Collection[str]) -> set[str]:
    """The ids of these edits whose retraction was requested or is done."""
    requested = sa.select(t.edits.c.id).where(t.edits.c.retract_asked_at.is_not(None))
    if len(edit_ids) > CHUNK:  # a large live set has more edits than were ever retracted, and retractions have an index
        return set(connection.execute(requested).scalars()) & set(edit_ids)
    return set(connection.execute(requested.where(t.edits.c.id.in_(list(edit_ids)))).scalars())


def request_retraction(
    connection: Connection, edit_ids: Collection[str], *, restore_previous: bool, author: str, now: datetime
) -> None:
    """Record the request of `author` to retract these edits."""
    values = {"retract_asked_at": now, "retracted_by": author, "restore_previous": restore_previous}
    for chunk in chunks(edit_ids):
        connection.execute(sa.update(t.edits).where(t.edits.c.id.in_(chunk)).values(**values))


def read_by_author(
    connection: Connection, author: str, *, since: datetime, until: datetime, after_seq: int, limit: int
) -> list[AuthoredEdit]:
    """The statuses of the edits that an author posted between two times, in order of submission."""
    columns = (t.edits.c.id, t.edits.c.seq, t.edits.c.status, t.edits.c.retract_asked_at)
    posted = (t.edits.c.author == author, t.edits.c.created_at >= since, t.edits.c.created_at <= until, t.edits.c.seq > after_seq)
    rows = connection.execute(sa.select(*columns).where(*posted).order_by(t.edits.c.seq).limit(limit))
    return [AuthoredEdit(row.id, row.seq, EditStatus(row.status), row.retract_asked_at is not None) for row in rows]


def chunks(edit_ids: Collection[str]) -> Iterator[list[str]]:
    """The ids in lists of at most CHUNK, the most that one statement names."""
    ids = list(edit_ids)
    return (ids[begin : begin + CHUNK] for begin in range(0, len(ids), CHUNK))


def change_statuses(connection: Connection, changes: Sequence[StatusChange], *, now: datetime) -> None:
    """Write changes of status. Raises Conflict for a forbidden transition; the caller must then roll back the transaction."""
    for columns, same_columns in itertools.groupby(changes, _changed_columns):
        rows = [_update_values(change) for change in same_columns]
        if connection.execute(_update_statement(columns, now), rows).rowcount != len(rows):
            raise Conflict(f"an edit cannot become {columns.status} from the state it is in")


def merge_probes(known: EditRequest, request: EditRequest) -> Mapping[str, Any]:
    """The probes of `known` by kind, with the further probes of `request`, which has the same fact and target. If `request` has
    another wording of the prompt, the wording becomes a rephrase.
    """
    probes: dict[str, tuple[Probe, ...]] = {}
    for kind in PROBE_KINDS:
        own: tuple[Probe, ...] = getattr(known, kind)
        offered: tuple[Probe, ...] = getattr(request, kind)
        if kind == "rephrases" and normalise(request.prompt) != normalise(known.prompt):
            offered = (Probe(prompt=request.prompt, train=True), *offered)
        prompts = {probe.prompt for probe in own}
        probes[kind] = own + tuple(probe for probe in offered if probe.prompt not in prompts)
    return probes


def write_probes(connection: Connection, edit: Edit, tokens: int) -> None:
    """Write the merged probes of an edit, and the cost in tokens of its fit with them."""
    values = {kind: [_probe_row(probe) for probe in getattr(edit, kind)] for kind in PROBE_KINDS}
    changed = {"probes": values, "scores_due": True, "tokens": tokens}
    connection.execute(sa.update(t.edits).where(t.edits.c.id == edit.id).values(**changed))


def find_next_to_score(connection: Connection) -> Edit | None:
    """The oldest live edit whose probes were not measured since its publication."""
    select = sa.select(t.edits).where(t.edits.c.scores_due, t.edits.c.status.in_(("applied", "consolidated")))
    row = connection.execute(select.order_by(t.edits.c.seq).limit(1)).mappings().one_or_none()
    return None if row is None else row_to_edit(row)


def write_scores(connection: Connection, edit_id: str, scores: Mapping[str, Any]) -> None:
    """Add the scores by probe kind to the report of an edit."""
    report = connection.execute(sa.select(t.edits.c.report).where(t.edits.c.id == edit_id)).scalar_one()
    values = {"report": {**(report or {}), **scores}, "scores_due": False}
    connection.execute(sa.update(t.edits).where(t.edits.c.id == edit_id).values(**values))


def row_to_edit(row: RowMapping) -> Edit:
    """The edit of a row."""
    probes: dict[str, Any] = {kind: tuple(Probe(**probe) for probe in row["probes"].get(kind, ())) for kind in PROBE_KINDS}
    same = (
        "id",
        "seq",
        "prompt",
        "target",
        "subject",
        "relation",
        "ground_truth",
        "conflict_key",
        "metadata",
        "author",
        "tokens",
        "accept",
        "accepted_anyway",
        "scope",
    )
    later = ("created_at", "applied_at", "version", "report", "supersedes", "superseded_by", "error")
    return Edit(
        status=EditStatus(row["status"]),
        method=row["method"],
        surfaces=tuple(row["surfaces"]),
        aliases=tuple(row["aliases"]),
        deferral=row_to_deferral(row["deferral"]),
        **probes,
        **{name: row[name] for name in same + later},
    )


def _row(edit_id: str, seq: int, status: EditStatus, request: EditRequest, *, author: str, now: datetime) -> dict[str, Any]:
    same = ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key", "accept", "scope")
    return {name: getattr(request, name) for name in same} | {
        "id": edit_id,
        "seq": seq,
        "status": str(status),
        "key_digest": key_digest(request),
        "method": str(request.method),
        "surfaces": list(request.surfaces),
        "aliases": list(request.aliases),
        "probes": {kind: [_probe_row(probe) for probe in getattr(request, kind)] for kind in PROBE_KINDS},
        "metadata": dict(request.metadata),
        "author": author,
        "created_at": now,
        "scores_due": False,
        "restore_previous": False,
    }


def _probe_row(probe: Probe) -> dict[str, Any]:
    return {"prompt": probe.prompt, "answer": probe.answer, "train": probe.train, "group": probe.group}


def _deferral_row(deferral: Deferral) -> dict[str, Any]:
    at = deferral.tried_at
    return {**asdict(deferral), "tried_at": None if at is None else at.isoformat()}


@dataclass(frozen=True)
class _ChangeColumns:
    """The columns that a change writes. Changes with the same columns are written by one statement."""

    status: EditStatus
    is_superseding: bool
    is_reported: bool
    is_deferral_known: bool
    accepted_anyway: bool | None


def _changed_columns(change: StatusChange) -> _ChangeColumns:
    return _ChangeColumns(
        change.status,
        change.supersedes is not None,
        change.report is not None,
        change.deferral is not None,
        change.accepted_anyway,
    )


def _update_statement(columns: _ChangeColumns, now: datetime) -> sa.Update:
    """The statement for changes of these columns. It changes only rows whose status may become the new one."""
    values: dict[str, Any] = {"status": str(columns.status)}
    values |= {name: sa.bindparam(f"new_{name}", type_=t.edits.c[name].type) for name in ("superseded_by", "error")}
    if columns.is_superseding:
        values["supersedes"] = sa.bindparam("new_supersedes", type_=t.edits.c.supersedes.type)
    if columns.is_reported:
        values["report"] = sa.bindparam("new_report", type_=t.edits.c.report.type)
    if columns.is_deferral_known:
        values["deferral"] = sa.bindparam("new_deferral", type_=t.edits.c.deferral.type)
    if columns.accepted_anyway is not None:
        values["accepted_anyway"] = columns.accepted_anyway
    if columns.status.is_live:
        values["version"] = sa.func.coalesce(t.edits.c.version, sa.bindparam("new_version", type_=t.edits.c.version.type))
        values["applied_at"] = sa.func.coalesce(t.edits.c.applied_at, sa.literal(now, t.edits.c.applied_at.type))
        values["scores_due"] = True
    before = sa.or_(*(t.edits.c.status == str(status) for status in sorted(transitions.statuses_before(columns.status))))
    return sa.update(t.edits).where(t.edits.c.id == sa.bindparam("of_edit"), before).values(**values)


def _update_values(change: StatusChange) -> dict[str, Any]:
    values: dict[str, Any] = {
        "of_edit": change.edit_id,
        "new_superseded_by": change.superseded_by,
        "new_error": change.error,
    }
    if change.supersedes is not None:
        values["new_supersedes"] = change.supersedes
    if change.report is not None:
        values["new_report"] = dict(change.report)
    if change.deferral is not None:
        values["new_deferral"] = _deferral_row(change.deferral)
    if change.status.is_live:
        values["new_version"] = change.version
    return values
