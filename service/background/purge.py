"""Purging: what still holds an edit that was taken back is removed from this server: older versions, exports, rows.

Retracting takes an edit out of what is answered, and the next major retrain out of the tensors. A purge removes the rest, in an
order that can be cut off anywhere and done again: versions stop to answer, then their files and exports go, then the rows, which
until then say what there is to do; last the database file is rewritten. What cannot be reached from here is named in the answer.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from service.background.exports import active_exports, versions_being_exported
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, NotFound, Refused, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle import trash
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.store_identity import MARK, is_marked
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX
from service.store import edits, erasure, evaluations, events, heads, idempotency, versions
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request

log = structlog.get_logger("errata.purge")
OVER = (EditStatus.RETRACTED, EditStatus.SUPERSEDED, EditStatus.FAILED, EditStatus.ROLLED_BACK)
MAX_EDITS = 1_000
MANIFEST = "errata.json"
PARTIAL = re.compile(r"\..+\.partial")  # the folder of an export that is being written
GOING = ".purged-"  # what the folder of an export is called while it is deleted; no export may be called so
ALWAYS = (
    "backups and snapshots of the database and of the data folder",
    "copies of exports outside the server's folder of exports",
    "what clients, proxies and their logs kept of requests and answers",
    "the memory of other processes of this service, until they are started again",
    "blocks of the file system from which files were deleted",
    "reasons that people wrote in their own words",
)
ON_POSTGRES = (
    "dead rows of the database, until VACUUM FULL is run on its tables",
    "the database's write-ahead log with its archive, and its replicas",
)


@dataclass(frozen=True)
class PurgeReport:
    """What was removed: `versions` that do not answer any more, names of checkpoint `files` and of `exports`, and how many `rows`
    were deleted or cleared. `unreachable` names, a sentence each, what may still hold the edits.
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
    exports: Path | None = None,
    forget: Callable[[int], None] | None = None,
    keyed: KeyedRequest | None = None,
    now: datetime | None = None,
) -> PurgeReport:
    """Remove older versions, exports and rows that hold these edits. Of each edit the event `edit.purged` stays, with its id.

    `exports` is the folder of exports (default: beside the checkpoints); `forget` is called with each version that must not
    answer any more. Calling again finishes what was cut off; a `keyed` request that was answered before is answered so again.
    Raises Refused for no or too many edits, NotFound for one that never was, Conflict for an edit that is not over, or that the
    head, a job or an export under way still holds.
    """
    ids = tuple(dict.fromkeys(edit_ids))
    if not 1 <= len(ids) <= MAX_EDITS:
        raise Refused(f"edits must name 1 to {MAX_EDITS} edits", field="edits")
    now = now or context.clock()
    asked = keyed or unkeyed_request(by)
    with context.store.read() as connection:
        answer = idempotency.recall(connection, asked)
    if answer is not None:
        return _answered(answer)
    if not is_marked(context.checkpoints.folder):  # what is not there now would be there again, and nobody would look for it
        raise Unreadable(
            f"nothing was purged: the data folder's checkpoints/{MARK} is not there, so see that the folder is mounted"
        )
    folder = exports if exports is not None else context.checkpoints.folder.parent / "exports"
    going = _stop_answering(context.store, ids, by=by, now=now)
    for number in going:
        if forget is not None:
            forget(number)
    crash_point("purge.after_collecting")
    files = _delete_files(context)
    gone, doubtful = _delete_exports(context.store, folder, ids, going)
    crash_point("purge.after_files")
    rows, spoken = _delete_rows(context.store, ids, by=by, now=now)
    doubtful += spoken
    crash_point("purge.after_rows")
    left = [
        *ALWAYS,
        *(() if context.store.is_sqlite else ON_POSTGRES),
        *context.store.scrub(),
        *doubtful,
        *_unnamed_files(context),
    ]
    if forget is None and going:
        left.append("the memory of this process, until it is started again")
    log.info("purged", edits=len(ids), versions=len(going), files=len(files), exports=len(gone), rows=rows, author=by)
    return _remembered(context.store, asked, PurgeReport(going, files, gone, rows, tuple(left)), now=now)


def _remembered(store: Store, asked: KeyedRequest, done: PurgeReport, *, now: datetime) -> PurgeReport:
    """What the purge is answered with: the same to all that asked for it under one key at once."""
    crash_point("purge.before_answer")
    with store.write() as connection:
        heads.lock(connection)
        if (answer := idempotency.recall(connection, asked)) is not None:
            return _answered(answer)
        idempotency.remember(connection, asked, asdict(done), now=now)
    return done


def _answered(answer: Mapping[str, Any]) -> PurgeReport:
    lists = {name: tuple(answer[name]) for name in ("versions", "files", "exports", "unreachable")}
    return PurgeReport(**lists, rows=answer["rows"])


def _stop_answering(store: Store, ids: Sequence[str], *, by: str, now: datetime) -> tuple[int, ...]:
    """Mark the versions that hold the edits as collected; their numbers, with those that an earlier, unfinished purge marked."""
    with store.write() as connection:
        head = heads.lock(connection)
        begun = _check(connection, ids, head.version)
        going = versions.find_holding(connection, ids)
        if versions_being_exported(connection) & set(going):
            raise Conflict(
                "an export under way is of a version that holds an edit to be purged: cancel it, or ask again when it has ended",
                field="edits",
            )
        for number in going:
            versions.pin(connection, number, pinned=False)
        versions.collect(connection, going)
        evaluations.cancel_all_of(connection, going, now=now)
        happened = [Event(type="version.purged", author=by, version=number) for number in going]
        numbers = sorted(set(going) | begun)
        left = [item.edit_id for item in edits.read_items(connection, ids)]
        happened += [Event(type="edit.purging", author=by, edit_id=edit_id, data={"versions": numbers}) for edit_id in left]
        events.write(connection, happened, now=now)
    return tuple(numbers)


def _check(connection: Connection, ids: Sequence[str], head: int) -> set[int]:
    """Raise what forbids the purge; the versions that an unfinished one before it marked."""
    found = {edit.id: edit for edit in edits.read_many(connection, ids)}
    begun: set[int] = set()
    for edit_id in ids:
        past = [
            event
            for event in events.read_page(connection, limit=10_000, edit_id=edit_id)
            if event["type"].startswith("edit.purg")
        ]
        begun |= {number for event in past for number in event["data"].get("versions", ())}
        if edit_id not in found and not past:
            raise NotFound("edits names an edit that does not exist", field="edits")
    if any(edit.status not in OVER for edit in found.values()):
        raise Conflict("an edit that is live or on its way cannot be purged: retract it first", field="edits")
    of_head = versions.read_live_set(connection, head)
    held = [item for edit_id in ids if (item := of_head.get(edit_id)) is not None]
    if any(item.is_in_tensors for item in held):
        raise Conflict(
            "the tensors of the version that answers now were trained on an edit to be purged: make a major retrain first",
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
    return begun


def _delete_files(context: LifecycleContext) -> tuple[str, ...]:
    """Delete the checkpoints that no kept version shares; under the head's lock, so that none comes to need one meanwhile."""
    removed = []
    with context.store.write() as connection:
        heads.lock(connection)
        for digest in sorted(versions.read_unneeded_digests(connection)):
            context.checkpoints.forget(digest)
            if trash.remove(context.checkpoints.folder, digest):
                removed.append(f"{digest}{CHECKPOINT_SUFFIX}")
    return tuple(removed)


def _unnamed_files(context: LifecycleContext) -> list[str]:
    """A file without a row may be of a publication under way, or of a newer backup of the database, so it is left where it is."""
    with context.store.read() as connection:
        known = versions.read_kept_digests(connection)
    folder = context.checkpoints.folder
    left = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK and path.stem not in known]
    return [f"{len(left)} files among the checkpoints that no version names: `errata versions verify` lists them"] if left else []


def _delete_exports(
    store: Store, folder: Path, ids: Sequence[str], going: Collection[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete exports of versions that hold the edits; their names, and a sentence on those of which nobody can tell any more."""
    gone: list[str] = []
    doubtful: list[str] = []
    busy, unfinished = _exports_written(store), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if PARTIAL.fullmatch(path.name):
            if any(job_id in path.name for job_id in busy):
                unfinished.append(path.name)
            else:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path.name)
            continue
        if path.name.startswith(GOING):
            shutil.rmtree(path)
            gone.append(path.name.removeprefix(GOING))
            continue
        manifest = _manifest(path)
        if manifest is None:
            continue
        if manifest.get("version") in going or not set(ids).isdisjoint(manifest.get("live", ())):
            leaving = path.with_name(GOING + path.name)
            path.rename(leaving)
            shutil.rmtree(leaving)
            gone.append(path.name)
        elif _is_collected(store, manifest.get("version")):
            doubtful.append(path.name)
    names = ", ".join(doubtful)
    sentence = f"the exports {names}: their versions were collected, and nobody knows what these had been trained on before"
    written = f"the unfinished exports {', '.join(unfinished)}: jobs under way are writing them, of versions without the edits"
    return tuple(gone), (*([sentence] if doubtful else ()), *([written] if unfinished else ()))


def _exports_written(store: Store) -> list[str]:
    """The ids of export jobs under way: each names its unfinished folder by its id."""
    with store.read() as connection:
        return [job.id for job in active_exports(connection)]


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_collected(store: Store, number: object) -> bool:
    if not isinstance(number, int):
        return True
    try:
        with store.read() as connection:
            return versions.get(connection, number).status is VersionStatus.COLLECTED
    except NotFound:
        return True


def _delete_rows(store: Store, ids: Sequence[str], *, by: str, now: datetime) -> tuple[int, tuple[str, ...]]:
    """Delete the rows; how many, and a sentence on what may speak of the edits and was left. What takes long comes before the
    transaction that everybody else waits for.
    """
    with store.read() as connection:
        found = erasure.find_mentions(connection, ids)
        roots = versions.find_roots_holding(connection, ids)
    for root in roots:
        with store.write() as connection:
            heads.lock(connection)
            erasure.enable_secure_delete(connection)
            versions.replace_root(connection, root)
    with store.write() as connection:
        heads.lock(connection)
        erasure.enable_secure_delete(connection)
        left = [item.edit_id for item in edits.read_items(connection, ids)]
        if not left:
            return 0, ()
        rows = versions.delete_items(connection, left)
        rows += erasure.remove(connection, left, found)
        events.write(connection, [Event(type="edit.purged", edit_id=edit_id, author=by) for edit_id in left], now=now)
    kept = f"{found.uncertain} evaluations and kept prompts with a short wording of an edit among other words"
    return rows, (kept,) if found.uncertain else ()
