"""Exports: asked for in a request, written by the worker beside the live traffic, found as a folder under its name.

An export that a dead process left behind is written again from the start; one that was whole already is recognised by its
manifest. With `consolidate` a retrain comes first, and what that published is exported.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog
from sqlalchemy.engine import Connection

from service import __version__
from service.domain.errors import Conflict, Corrupt, Gone, Refused, ServiceError, Unavailable, Unreadable
from service.domain.liveset import LiveSet
from service.domain.version import Version, VersionStatus
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.crash_points import crash_point
from service.lifecycle.retrain.request import request_retrain
from service.lm.base import Base
from service.lm.export import ExportResult, read_manifest, write_export
from service.lm.export_card import window_warning
from service.lm.export_settings import SHARD_SIZE
from service.lm.overlay import Overlay
from service.store import events, heads, idempotency, jobs, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request
from service.store.jobs import Job

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_CLAIMS = 5  # a machine that has no memory for it should not be ended again and again
log = structlog.get_logger("errata.export")


class ExportCancelled(Exception):
    """Somebody asked for the running export to be cancelled."""


def request_export(
    store: Store,
    folder: Path,
    *,
    version: int | None,
    name: str | None = None,
    consolidate: Literal["minor", "major"] | None = None,
    max_shard_size: str | None = None,
    author: str,
    keyed: KeyedRequest | None = None,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> Job:
    """Queue an export of a version (None: the head of this moment) to `folder / name`; without a name one is made up.

    With `consolidate` it is the version that a retrain of that kind publishes, so none may be named. A `keyed` request that was
    answered before is answered with that job as it stands now. Raises Refused, NotFound, Gone or Corrupt for what cannot be
    exported, Conflict if the name is taken or another export waits already.
    """
    if consolidate is not None and version is not None:
        raise Refused("version cannot be given with consolidate: what the retrain publishes is exported", field="version")
    asked = keyed or unkeyed_request(author)
    with store.write() as connection:
        head = heads.lock(connection)
        now = now or read_now(connection)
        if (answer := idempotency.recall(connection, asked)) is not None:
            return jobs.get(connection, answer["job"])
        number = None if consolidate is not None else head.version if version is None else version
        if number is not None:
            _check_is_there(versions.get(connection, number))
        if name is None:
            name = f"version-{number}" if number is not None else f"consolidated-after-{head.version}"
        if NAME.fullmatch(name) is None:
            raise Refused(
                "name must be 1 to 64 of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit", field="name"
            )
        others = active_exports(connection)
        if (folder / name).exists() or any(_wish(job)["name"] == name for job in others):
            raise Conflict("there is an export of this name already; give another one", field="name")
        if any(job.status == "queued" for job in others):
            raise Conflict("another export waits already; ask again when it has begun")
        wish = {"version": number, "name": name, "consolidate": consolidate, "max_shard_size": max_shard_size}
        job = jobs.insert(connection, "export", request=wish, reason=None, author=author, now=now)
        happened = Event(type="export.requested", version=number, job_id=job.id, author=author, data={"name": name})
        events.write(connection, [happened], now=now)
        idempotency.remember(connection, asked, {"job": job.id}, now=now)
        crash_point("request.before_commit")
    crash_point("request.after_commit")
    if ring is not None:
        ring(job.id)
    return job


def active_exports(connection: Connection) -> list[Job]:
    """The exports that are being written or wait."""
    found = (jobs.find_active(connection, "export", status) for status in ("running", "queued"))
    return [job for job in found if job is not None]


def versions_being_exported(connection: Connection) -> set[int]:
    """The versions that exports are being written of or wait for, as far as they are known."""
    wishes = [_wish(job) for job in active_exports(connection)]
    known = {jobs.get(connection, wish["retrain"]).version if "retrain" in wish else wish["version"] for wish in wishes}
    return {number for number in known if number is not None}


@dataclass(eq=False)
class Exports:
    """The worker's side: `step` writes the export that is due, or looks whether the retrain before it has ended.

    `retrain` queues one: `(author, mode) -> Job`, Conflict if there is nothing to train.
    """

    store: Store
    base: Base
    checkpoints: Checkpoints
    folder: Path
    max_shard_size: str = SHARD_SIZE
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ring: Callable[[str], None] = lambda job_id: None
    _taken: str | None = None  # the job that this process has taken up

    def step(self) -> bool:
        """Go on with the export that is due; whether there was anything to do. Whatever stops it is in its row."""
        job = self._claim()
        if job is None:
            return False
        try:
            self._raise_if_cancelled(job.id)
            number = self._number(job)
            if number is None:
                return False
            self._export(job, number)
        except ExportCancelled:
            self._end(job, None)
        except Unreadable:  # a disk that is away comes back: the export waits for it
            raise
        except ServiceError as error:
            self._end(job, error.message)
        except Exception as error:  # a model that transformers cannot save; a repetition would end the same way
            log.error("export failed", error=type(error).__name__)
            self._end(job, f"the export ended with {type(error).__name__}")
        return True

    def _claim(self) -> Job | None:
        with self.store.read() as connection:
            job = jobs.find_active(connection, "export")
        if job is None or job.id == self._taken:
            return job
        with self.store.write() as connection:
            job = jobs.find_active(connection, "export")
            if job is None:
                return None
            now = self.clock()
            is_given_up = job.claims >= MAX_CLAIMS
            if not is_given_up:
                message = "begun" if job.claims == 0 else "begun again: the process before this one ended"
                values = {"status": "running", "claims": job.claims + 1, "progress": 0.0, "started_at": job.started_at or now}
                jobs.append_to_log(connection, job.id, message, now)
                job = jobs.update(connection, job.id, **values)
        if is_given_up:
            self._end(job, "it ended the process again and again")
            return None
        self._taken = job.id
        return job

    def _number(self, job: Job) -> int | None:
        """The version to export; None while the retrain that is to publish it goes on."""
        wish = _wish(job)
        if wish["consolidate"] is None:
            return int(wish["version"])
        if "retrain" not in wish:
            retrain = self._ask_for_retrain(job, wish)
            if retrain is None:  # nothing is live, and nothing is left to undo: the head is what a retrain would make
                return self._head()
            return None
        with self.store.read() as connection:
            retrain = jobs.get(connection, wish["retrain"])
        if retrain.is_active:
            return None
        if retrain.status != "done" or retrain.version is None:
            reason = retrain.error or "it was cancelled"
            raise Conflict(f"the retrain before the export published nothing: {reason}")
        return retrain.version

    def _ask_for_retrain(self, job: Job, wish: Mapping[str, Any]) -> Job | None:
        now = self.clock()
        try:
            mode = wish["consolidate"]
            retrain = request_retrain(self.store, author=job.author, reason="for an export", mode=mode, now=now)
        except Conflict as error:
            with self.store.write() as connection:
                jobs.append_to_log(connection, job.id, f"no retrain first: {error.message}", self.clock())
            return None
        with self.store.write() as connection:
            jobs.update(connection, job.id, request={**wish, "retrain": retrain.id}, stage="waiting for the retrain")
            jobs.append_to_log(connection, job.id, f"waits for the retrain {retrain.id}", self.clock())
        self.ring(retrain.id)
        return retrain

    def _head(self) -> int:
        with self.store.read() as connection:
            return heads.read(connection).version

    def _export(self, job: Job, number: int) -> None:
        wish = _wish(job)
        target = self.folder / wish["name"]
        with self.store.read() as connection:
            base_name = heads.read(connection).base_name
            version = versions.get(connection, number)
            _check_is_there(version)
            held = versions.read_live_set(connection, number)
        if (read_manifest(target) or {}).get("job") == job.id:  # whole already: the process ended between renaming and its row
            self._finish(job, version, _counted(target))
            return
        self._sweep(wish["name"])
        overlay = self.checkpoints.get_overlay(version)
        manifest = self._manifest(job, version, held, base_name) | _said_of_window(held, overlay)
        written = write_export(
            self.base,
            overlay,
            target,
            manifest=manifest,
            max_shard_size=wish["max_shard_size"] or self.max_shard_size,
            temporary=self.folder / f".{wish['name']}.{job.id}-{job.claims}.partial",
            progress=lambda share, stage: self._progress(job.id, share, stage),
        )
        self._finish(job, version, written)

    def _manifest(self, job: Job, version: Version, held: LiveSet, base_name: str) -> dict[str, Any]:
        return {
            "version": version.number,
            "digest": version.digest,
            "base": _without_path(base_name),
            "fingerprint": self.base.fingerprint,
            "window": version.window,
            "live": [item.edit_id for item in held.live],
            "errata": __version__,
            "job": job.id,
        }

    def _sweep(self, name: str) -> None:
        """Remove what processes that were killed left of this name."""
        for path in self.folder.glob(f".{name}.*.partial"):
            shutil.rmtree(path, ignore_errors=True)

    def _progress(self, job_id: str, share: float, stage: str) -> None:
        try:
            self._raise_if_cancelled(job_id)
            with self.store.write() as connection:
                if jobs.get(connection, job_id).stage != stage:
                    jobs.append_to_log(connection, job_id, stage, self.clock())
                jobs.write(connection, job_id, progress=share, stage=stage)
        except Unavailable:
            pass  # the files do not wait for a database that is away; its rows are written at the end

    def _raise_if_cancelled(self, job_id: str) -> None:
        with self.store.read() as connection:
            if jobs.is_cancel_requested(connection, job_id):
                raise ExportCancelled

    def _finish(self, job: Job, version: Version, written: ExportResult) -> None:
        """Write what came of it; unless the version was purged meanwhile, of which nothing may stay."""
        now = self.clock()
        result = _result(version, written)
        with self.store.write() as connection:
            if not _is_ours(connection, job):
                return
            purged = versions.get(connection, version.number).status is VersionStatus.COLLECTED
            if not purged:
                jobs.update(connection, job.id, result=result)
                jobs.append_to_log(connection, job.id, f"done: {written.files} files, {written.bytes} bytes", self.clock())
                if result["warning"] is not None:
                    jobs.append_to_log(connection, job.id, result["warning"], self.clock())
                jobs.finish(connection, job.id, now=now)
                happened = Event(type="export.done", version=version.number, job_id=job.id, author=job.author)
                events.write(connection, [happened], now=now)
        if purged:
            shutil.rmtree(written.path)
            raise Gone("this version was collected while it was exported", field="version")
        self._taken = None

    def _end(self, job: Job, error: str | None) -> None:
        """End a job that failed, or without an error one that was cancelled, of which nothing stays; unless another process has
        it.
        """
        with self.store.read() as connection:
            if not _is_current(connection, job):
                return
        name = _wish(job)["name"]
        self._sweep(name)
        if (read_manifest(self.folder / name) or {}).get("job") == job.id:  # whole: its process ended before its row said so
            shutil.rmtree(self.folder / name)
        now = self.clock()
        with self.store.write() as connection:
            if not _is_ours(connection, job):
                return
            if error is None:
                jobs.finish_cancelled(connection, job.id, now=now)
            else:
                jobs.append_to_log(connection, job.id, error, now)
                jobs.finish(connection, job.id, error=error, now=now)
            happened = "export.cancelled" if error is None else "export.failed"
            events.write(connection, [Event(type=happened, job_id=job.id, author=job.author)], now=now)
        self._taken = None


def _check_is_there(version: Version) -> None:
    if version.status is VersionStatus.COLLECTED:
        raise Gone("this version was collected", field="version")
    if version.status is VersionStatus.CORRUPT:
        raise Corrupt("the checkpoint of this version is damaged")


def _said_of_window(held: LiveSet, overlay: Overlay) -> dict[str, Any]:
    """How many edits the weights lack, and a sentence that warns of it; None where they lack nothing."""
    beside = sum(item.is_live for item in held.window)
    if overlay.adapter is None:
        return {"beside": 0, "warning": None}
    return {"beside": beside, "warning": window_warning(beside, len(held.live), len(held.window) - beside)}


def _result(version: Version, written: ExportResult) -> dict[str, Any]:
    manifest = read_manifest(written.path) or {}
    return {
        "path": str(written.path),
        "files": written.files,
        "bytes": written.bytes,
        "digest": version.digest,
        "version": version.number,
        "window": version.window,
        "warning": manifest.get("warning"),
    }


def _is_ours(connection: Connection, job: Job) -> bool:
    """Whether no other process has taken up the job since this one did."""
    heads.lock(connection)
    return _is_current(connection, job)


def _is_current(connection: Connection, job: Job) -> bool:
    now = jobs.get(connection, job.id)
    return now.claims == job.claims and now.is_active


def _wish(job: Job) -> Mapping[str, Any]:
    assert job.request is not None
    return job.request


def _without_path(name: str) -> str:
    """A model's name as others may read it: of a local folder its last part alone."""
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _counted(folder: Path) -> ExportResult:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return ExportResult(folder, len(files), sum(path.stat().st_size for path in files))
