"""Purging: the removal of everything on this server that still holds a retracted edit: older versions, exports, rows.

A retraction takes an edit out of the answers, and the next major retrain takes it out of the tensors. A purge removes the rest.
Its order allows an interruption anywhere and a repetition: first versions stop answering, then their files and exports are
deleted, then the rows, which until then record the work left; at last the database file is rewritten. The report names what this
server cannot reach.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from service.background.exports import active_exports, versions_being_exported
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, NotFound, Refused, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.store import edits, erasure, evaluations, events, heads, idempotency, stated_edits, versions
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request

log = structlog.get_logger("errata.purge")
PURGEABLE = (EditStatus.RETRACTED, EditStatus.SUPERSEDED, EditStatus.FAILED, EditStatus.ROLLED_BACK)
MAX_EDITS = 1_000
MANIFEST = "errata.json"
PARTIAL = re.compile(r"\..+\.partial")  # the folder of an export that is being written
DELETING_PREFIX = ".purged-"  # prefix of an export's folder while it is deleted; no export's name may begin so
ALWAYS_UNREACHABLE = (
    "backups and snapshots of the database and of the data folder",
    "copies of exports outside the server's folder of exports",
    "what clients, proxies and their logs kept of requests and answers",
    "the memory of other processes of this service, until they are started again",
    "blocks of the file system from which files were deleted",
    "reasons that people wrote in their own words",
)
UNREACHABLE_ON_POSTGRES = (
    "dead rows of the database, until VACUUM FULL is run on its tables",
    "the database's write-ahead log with its archive, and its replicas",
)


@dataclass(frozen=True)
class PurgeReport:
    """What a purge removed: numbers of `versions` that do not answer any more, names of checkpoint `files` and of `exports`, and
    the number of `rows` that were deleted or cleared. `unreachable` lists, a sentence each, what may still hold the edits.
    """

    versions: tuple[int, ...]
    files: tuple[str, ...]
    exports: tuple[str, ...]
    rows: int
    unreachable: tuple[str, ...]


def purge(
    context: LifecycleContext,
    *,
    edit_ids: Collection[str],
    by: str,
    exports: Path,
    forget: Callable[[int], None] | None = None,
    keyed: KeyedRequest | None = None,
    now: datetime | None = None,
) -> PurgeReport:
    """Remove older versions, exports and rows that hold these edits. Of each edit the event `edit.purged` stays, with its id.

    `exports` is the folder of exports; `forget` is called with each version that must not answer any more. A repeated call
    finishes an interrupted purge; a `keyed` request that was answered before gets that answer.

    Raises Refused for no or more than 1,000 edits, NotFound for an edit that never existed, Conflict for an edit that is live or
    on its way, or that the head, a job or an export under way still holds.
    """
    ids = tuple(dict.fromkeys(edit_ids))
    if not 1 <= len(ids) <= MAX_EDITS:
        raise Refused(f"edits must name 1 to {MAX_EDITS} edits", field="edits")
    now = now or context.clock()
    request_key = keyed or unkeyed_request(by)
    with context.store.read() as connection:
        answer = idempotency.recall(connection, request_key)
    if answer is not None:
        return _from_answer(answer)
    fault = context.checkpoints.store.find_fault()
    if fault is not None:  # a folder that comes back later would still hold the edits
        raise Unreadable(f"nothing was purged: {fault}")
    numbers = _stop_answering(context.store, ids, by=by, now=now)
    for number in numbers:
        if forget is not None:
            forget(number)
    crash_point("purge.after_collecting")
    files = _delete_checkpoints(context)
    deleted_exports, doubtful = _delete_exports(context.store, exports, ids, numbers)
    crash_point("purge.after_files")
    rows, doubtful_rows = _delete_rows(context.store, ids, by=by, now=now)
    doubtful += doubtful_rows
    crash_point("purge.after_rows")
    unreachable = [
        *ALWAYS_UNREACHABLE,
        *(() if context.store.is_sqlite else UNREACHABLE_ON_POSTGRES),
        *context.store.scrub(),
        *doubtful,
        *_mention_unnamed(context),
    ]
    if forget is None and numbers:
        unreachable.append("the memory of this process, until it is started again")
    log.info(
        "purged", edits=len(ids), versions=len(numbers), files=len(files), exports=len(deleted_exports), rows=rows, author=by
    )
    report = PurgeReport(numbers, files, deleted_exports, rows, tuple(unreachable))
    return _remember(context.store, request_key, report, now=now)


def _remember(store: Store, request_key: KeyedRequest, report: PurgeReport, *, now: datetime) -> PurgeReport:
    """Store the report under the request's key; concurrent requests of one key get the report that was stored first."""
    crash_point("purge.before_answer")
    with store.write() as connection:
        heads.lock(connection)
        if (answer := idempotency.recall(connection, request_key)) is not None:
            return _from_answer(answer)
        idempotency.remember(connection, request_key, asdict(report), now=now)
    return report


def _from_answer(answer: Mapping[str, Any]) -> PurgeReport:
    lists = {name: tuple(answer[name]) for name in ("versions", "files", "exports", "unreachable")}
    return PurgeReport(**lists, rows=answer["rows"])


def _stop_answering(store: Store, ids: Sequence[str], *, by: str, now: datetime) -> tuple[int, ...]:
    """Mark versions that hold the edits as collected; their numbers, and those that an unfinished purge has marked before."""
    with store.write() as connection:
        head = heads.lock(connection)
        marked_before = _check(connection, ids, head.version)
        holding = versions.find_holding(connection, ids)
        if versions_being_exported(connection) & set(holding):
            raise Conflict(
                "an export under way is of a version that holds an edit to be purged: cancel it, or ask again when it has ended",
                field="edits",
            )
        for number in holding:
            versions.pin(connection, number, pinned=False)
        versions.collect(connection, holding)
        evaluations.cancel_all_of(connection, holding, now=now)
        purged = [Event(type="version.purged", author=by, version=number) for number in holding]
        numbers = sorted(set(holding) | marked_before)
        remaining_ids = [item.edit_id for item in edits.read_items(connection, ids)]
        purged += [
            Event(type="edit.purging", author=by, edit_id=edit_id, data={"versions": numbers}) for edit_id in remaining_ids
        ]
        events.write(connection, purged, now=now)
    return tuple(numbers)


def _check(connection: Connection, ids: Sequence[str], head: int) -> set[int]:
    """Raise Conflict or NotFound if the purge is forbidden; the versions that an unfinished purge has marked before."""
    stored = {edit.id: edit for edit in edits.read_many(connection, ids)}
    marked_before: set[int] = set()
    for edit_id in ids:
        purge_events = [
            event
            for event in events.read_page(connection, limit=10_000, edit_id=edit_id)
            if event["type"].startswith("edit.purg")
        ]
        marked_before |= {number for event in purge_events for number in event["data"].get("versions", ())}
        if edit_id not in stored and not purge_events:
            raise NotFound("edits names an edit that does not exist", field="edits")
    if any(edit.status not in PURGEABLE for edit in stored.values()):
        raise Conflict("an edit that is live or on its way cannot be purged: retract it first", field="edits")
    head_set = versions.read_live_set(connection, head)
    held = [item for edit_id in ids if (item := head_set.get(edit_id)) is not None]
    if any(item.is_in_tensors for item in held):
        raise Conflict(
            "the tensors of the version that answers now were trained on an edit to be purged: make a major retrain first",
            field="edits",
        )
    if not set(ids).isdisjoint(stated_edits.read_ids(connection, head)):
        raise Conflict(
            "the version that answers now states an edit to be purged, and is about to be replaced: ask again in a moment",
            field="edits",
        )
    if held:
        raise Conflict(
            "the window of the version that answers now was trained on an edit to be purged: a refit or a retrain of either kind"
            " takes it out, so make one first",
            field="edits",
        )
    if erasure.has_active_job(connection, ids):
        raise Conflict("a job under way was given an edit to be purged: ask again when it has ended", field="edits")
    return marked_before


def _delete_checkpoints(context: LifecycleContext) -> tuple[str, ...]:
    """Delete checkpoints that no kept version needs, and return their names. The head's lock is held, so that no new version
    needs one meanwhile.
    """
    removed = []
    with context.store.write() as connection:
        heads.lock(connection)
        for digest in sorted(versions.read_unneeded_digests(connection)):
            name = context.checkpoints.remove(digest)
            if name is not None:
                removed.append(name)
    return tuple(removed)


def _mention_unnamed(context: LifecycleContext) -> list[str]:
    """A sentence on files without a row. They stay: they may belong to a publication under way or to a newer backup."""
    with context.store.read() as connection:
        kept_digests = versions.read_kept_digests(connection)
    names = context.checkpoints.store.list_unnamed(kept_digests)
    # A copy beside a kept checkpoint, such as its digest with another suffix, holds no more than that checkpoint.
    unnamed = [name for name in names if PurePath(name).stem not in kept_digests]
    if not unnamed:
        return []
    return [f"{len(unnamed)} files among the checkpoints that no version names: `errata versions verify` lists them"]


def _delete_exports(
    store: Store, folder: Path, ids: Sequence[str], numbers: Collection[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete exports of versions that hold the edits; their names, and a sentence on exports whose edits are unknown."""
    deleted: list[str] = []
    doubtful: list[str] = []
    active_ids, unfinished = _active_export_ids(store), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if PARTIAL.fullmatch(path.name):
            if any(job_id in path.name for job_id in active_ids):
                unfinished.append(path.name)
            else:
                shutil.rmtree(path, ignore_errors=True)
                deleted.append(path.name)
            continue
        if path.name.startswith(DELETING_PREFIX):
            shutil.rmtree(path)
            deleted.append(path.name.removeprefix(DELETING_PREFIX))
            continue
        manifest = _manifest(path)
        if manifest is None:
            continue
        if manifest.get("version") in numbers or not set(ids).isdisjoint(manifest.get("live", ())):
            renamed = path.with_name(DELETING_PREFIX + path.name)
            path.rename(renamed)
            shutil.rmtree(renamed)
            deleted.append(path.name)
        elif _is_collected(store, manifest.get("version")):
            doubtful.append(path.name)
    names = ", ".join(doubtful)
    sentence = f"the exports {names}: their versions were collected, and nobody knows what these had been trained on before"
    written = f"the unfinished exports {', '.join(unfinished)}: jobs under way are writing them, of versions without the edits"
    return tuple(deleted), (*([sentence] if doubtful else ()), *([written] if unfinished else ()))


def _active_export_ids(store: Store) -> list[str]:
    """The ids of active export jobs: the name of an unfinished folder holds the id of its job."""
    with store.read() as connection:
        return [job.id for job in active_exports(connection)]


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _is_collected(store: Store, number: object) -> bool:
    if not isinstance(number, int):
        return True
    try:
        with store.read() as connection:
            return versions.get(connection, number).status is VersionStatus.COLLECTED
    except NotFound:
        return True


def _delete_rows(store: Store, ids: Sequence[str], *, by: str, now: datetime) -> tuple[int, tuple[str, ...]]:
    """Delete the rows; their number, and a sentence on rows that may mention the edits and were left. The long reads come before
    the transaction for which all other writers wait.
    """
    with store.read() as connection:
        mentions = erasure.find_mentions(connection, ids)
        roots = versions.find_roots_holding(connection, ids)
    for root in roots:
        with store.write() as connection:
            heads.lock(connection)
            erasure.enable_secure_delete(connection)
            versions.replace_root(connection, root)
    with store.write() as connection:
        heads.lock(connection)
        erasure.enable_secure_delete(connection)
        remaining_ids = [item.edit_id for item in edits.read_items(connection, ids)]
        if not remaining_ids:
            return 0, ()
        rows = versions.delete_items(connection, remaining_ids)
        rows += erasure.remove(connection, remaining_ids, mentions)
        events.write(connection, [Event(type="edit.purged", edit_id=edit_id, author=by) for edit_id in remaining_ids], now=now)
    sentence = f"{mentions.uncertain} evaluations and kept prompts with a short wording of an edit among other words"
    return rows, (sentence,) if mentions.uncertain else ()
