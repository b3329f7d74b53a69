"""Exports: requested over the API, written by the worker beside the live traffic into a folder of their name.

An unfinished export of a dead process is written again from the start; a complete one is recognised by its manifest. With
`consolidate` a retrain comes first, and the version that it publishes is exported.
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
from service.domain.model_name import hide_folder
from service.domain.version import Head, Version, VersionStatus
from service.editors.stating import Stating
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.job_claims import claim_job, is_worn_out
from service.lifecycle.keyed_requests import answer_once
from service.lifecycle.retrain.request import request_retrain
from service.lm.base import Base
from service.lm.export import ExportResult, read_manifest, write_export
from service.lm.export_card import window_warning
from service.lm.export_settings import SHARD_SIZE
from service.lm.overlay import Overlay
from service.store import events, heads, jobs, stated_edits, versions
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request
from service.store.jobs import Job

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_CLAIMS = 5  # an export that exhausts the memory must not end the process for ever
log = structlog.get_logger("errata.export")


class ExportCancelled(Exception):
    """The running export was cancelled by a request."""


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
    """Queue an export of a version (None: the head) to `folder / name`; the default name holds the version's number.

    With `consolidate` a retrain of that kind comes first and its version is exported, so `version` must be None. A `keyed`
    request that was answered before gets the same job in its current state. Raises Refused, NotFound, Gone or Corrupt for a
    version that cannot be exported, Conflict if the name is in use or another export is queued already.
    """
    if consolidate is not None and version is not None:
        raise Refused("version cannot be given with consolidate: the retrain's version is exported", field="version")

    def queue(connection: Connection, head: Head, now: datetime) -> Job:
        number = None if consolidate is not None else head.version if version is None else version
        if number is not None:
            chosen_version = versions.get(connection, number)
            _check_can_export(chosen_version)
            chosen_version.check_base(head.base_fingerprint)
        default = f"version-{number}" if number is not None else f"consolidated-after-{head.version}"
        chosen = default if name is None else name
        if NAME.fullmatch(chosen) is None:
            raise Refused(
                "name must be 1 to 64 of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit", field="name"
            )
        active = active_exports(connection)
        if (folder / chosen).exists() or any(_request_of(job)["name"] == chosen for job in active):
            raise Conflict("there is an export of this name already; give another one", field="name")
        if any(job.status == "queued" for job in active):
            raise Conflict("another export waits already; ask again when it has begun")
        request = {"version": number, "name": chosen, "consolidate": consolidate, "max_shard_size": max_shard_size}
        job = jobs.insert(connection, "export", request=request, reason=None, author=author, now=now)
        requested = Event(type="export.requested", version=number, job_id=job.id, author=author, data={"name": chosen})
        events.write(connection, [requested], now=now)
        return job

    job = answer_once(store, keyed or unkeyed_request(author), "job", read=jobs.get, queue=queue, now=now)
    if ring is not None:
        ring(job.id)
    return job


def active_exports(connection: Connection) -> list[Job]:
    """The running export and the queued export, as far as there are any."""
    candidates = (jobs.find_active(connection, "export", status) for status in ("running", "queued"))
    return [job for job in candidates if job is not None]


def versions_being_exported(connection: Connection) -> set[int]:
    """The versions that active exports write or will write, as far as they are known."""
    requests = [_request_of(job) for job in active_exports(connection)]
    numbers = {
        jobs.get(connection, request["retrain"]).version if "retrain" in request else request["version"] for request in requests
    }
    return {number for number in numbers if number is not None}


@dataclass(eq=False)
class Exports:
    """The worker's side: `step` writes the export that is due, or checks whether the retrain before it has ended."""

    store: Store
    base: Base
    checkpoints: Checkpoints
    folder: Path
    stating: Stating
    max_shard_size: str = SHARD_SIZE
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ring: Callable[[str], None] = lambda job_id: None
    _claimed_id: str | None = None  # of the job that this process has claimed

    def step(self) -> bool:
        """Continue the export that is due; whether there was anything to do. An error is written into its job."""
        job = self._claim()
        if job is None:
            return False
        try:
            self._raise_if_cancelled(job.id)
            number = self._version_of(job)
            if number is None:
                return False
            self._export(job, number)
        except ExportCancelled:
            self._end(job, None)
        except Unreadable:  # the export waits until the disk is back
            raise
        except ServiceError as error:
            self._end(job, error.message)
        except Exception as error:  # such as a model that transformers cannot save; a retry would end the same way
            log.error("export failed", error=type(error).__name__)
            self._end(job, f"the export ended with {type(error).__name__}")
        return True

    def _claim(self) -> Job | None:
        with self.store.read() as connection:
            job = jobs.find_active(connection, "export")
        if job is None or job.id == self._claimed_id:
            return job
        with self.store.write() as connection:
            job = jobs.find_active(connection, "export")
            if job is None:
                return None
            now = self.clock()
            is_given_up = is_worn_out(job, MAX_CLAIMS)
            if not is_given_up:
                message = "begun" if job.claims == 0 else "begun again: the process before this one ended"
                jobs.append_to_log(connection, job.id, message, now)
                job = claim_job(connection, job, fence=None, now=now, progress=0.0)
        if is_given_up:
            self._end(job, "it ended the process again and again")
            return None
        self._claimed_id = job.id
        return job

    def _version_of(self, job: Job) -> int | None:
        """The number of the version to export; None while the retrain before the export goes on."""
        request = _request_of(job)
        if request["consolidate"] is None:
            return int(request["version"])
        if "retrain" not in request:
            retrain = self._request_retrain(job, request)
            if retrain is None:  # no edit to train or to forget: the head is exported
                return self._read_head()
            return None
        with self.store.read() as connection:
            retrain = jobs.get(connection, request["retrain"])
        if retrain.is_active:
            return None
        if retrain.status != "done" or retrain.version is None:
            reason = retrain.error or "it was cancelled"
            raise Conflict(f"the retrain before the export published nothing: {reason}")
        return retrain.version

    def _request_retrain(self, job: Job, request: Mapping[str, Any]) -> Job | None:
        now = self.clock()
        try:
            mode = request["consolidate"]
            retrain = request_retrain(self.store, author=job.author, reason="for an export", mode=mode, now=now)
        except Conflict as error:
            with self.store.write() as connection:
                jobs.append_to_log(connection, job.id, f"no retrain first: {error.message}", self.clock())
            return None
        with self.store.write() as connection:
            jobs.update(connection, job.id, request={**request, "retrain": retrain.id}, stage="waiting for the retrain")
            jobs.append_to_log(connection, job.id, f"waits for the retrain {retrain.id}", self.clock())
        self.ring(retrain.id)
        return retrain

    def _read_head(self) -> int:
        with self.store.read() as connection:
            return heads.read(connection).version

    def _export(self, job: Job, number: int) -> None:
        request = _request_of(job)
        target = self.folder / request["name"]
        with self.store.read() as connection:
            base_name = heads.read(connection).base_name
            version = versions.get(connection, number)
            _check_can_export(version)
            live_set = versions.read_live_set(connection, number)
            stated = self.stating.state(stated_edits.read(connection, number))
        if _is_complete(target, job):  # the process ended between the rename and the update of the row
            self._finish(job, version, _count_files(target))
            return
        self._remove_partial(request["name"])
        overlay = self.checkpoints.get_overlay(version)
        manifest = self._manifest(job, version, live_set, base_name) | _window_summary(live_set, overlay)
        written = write_export(
            self.base,
            overlay,
            target,
            manifest=manifest,
            stated=stated,
            max_shard_size=request["max_shard_size"] or self.max_shard_size,
            temporary=self.folder / f".{request['name']}.{job.id}-{job.claims}.partial",
            progress=lambda share, stage: self._progress(job.id, share, stage),
        )
        self._finish(job, version, written)

    def _manifest(self, job: Job, version: Version, live_set: LiveSet, base_name: str) -> dict[str, Any]:
        return {
            "version": version.number,
            "digest": version.digest,
            "base": hide_folder(base_name),
            "fingerprint": self.base.fingerprint,
            "window": version.window,
            "live": [item.edit_id for item in live_set.live],
            "errata": __version__,
            "job": job.id,
        }

    def _remove_partial(self, name: str) -> None:
        """Remove unfinished folders of this name, which killed processes left."""
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
            pass  # writing files does not wait for the database; the job is updated at the end

    def _raise_if_cancelled(self, job_id: str) -> None:
        with self.store.read() as connection:
            if jobs.is_cancel_requested(connection, job_id):
                raise ExportCancelled

    def _finish(self, job: Job, version: Version, written: ExportResult) -> None:
        """Write the result. Raises Gone, and removes the export, if the version was purged meanwhile."""
        now = self.clock()
        result = _result(version, written)
        with self.store.write() as connection:
            if not _lock_claim(connection, job):
                return
            is_collected = versions.get(connection, version.number).status is VersionStatus.COLLECTED
            if not is_collected:
                jobs.update(connection, job.id, result=result)
                jobs.append_to_log(connection, job.id, f"done: {written.files} files, {written.bytes} bytes", self.clock())
                if result["warning"] is not None:
                    jobs.append_to_log(connection, job.id, result["warning"], self.clock())
                jobs.finish(connection, job.id, now=now)
                done = Event(type="export.done", version=version.number, job_id=job.id, author=job.author)
                events.write(connection, [done], now=now)
        if is_collected:
            shutil.rmtree(written.path)
            raise Gone("this version was collected while it was exported", field="version")
        self._claimed_id = None

    def _end(self, job: Job, error: str | None) -> None:
        """End a job as failed, or as cancelled without an error, and remove its files, unless another process has claimed it."""
        with self.store.read() as connection:
            if not _holds_claim(connection, job):
                return
        name = _request_of(job)["name"]
        self._remove_partial(name)
        if _is_complete(self.folder / name, job):  # its process ended before the update of the row
            shutil.rmtree(self.folder / name)
        now = self.clock()
        with self.store.write() as connection:
            if not _lock_claim(connection, job):
                return
            if error is None:
                jobs.finish_cancelled(connection, job.id, now=now)
            else:
                jobs.append_to_log(connection, job.id, error, now)
                jobs.finish(connection, job.id, error=error, now=now)
            event_type = "export.cancelled" if error is None else "export.failed"
            events.write(connection, [Event(type=event_type, job_id=job.id, author=job.author)], now=now)
        self._claimed_id = None


def _is_complete(folder: Path, job: Job) -> bool:
    """Whether a folder holds the complete export of a job: it gets its name only when it is complete."""
    return (read_manifest(folder) or {}).get("job") == job.id


def _check_can_export(version: Version) -> None:
    if version.status is VersionStatus.COLLECTED:
        raise Gone("this version was collected", field="version")
    if version.status is VersionStatus.CORRUPT:
        raise Corrupt("the checkpoint of this version is damaged")


def _window_summary(live_set: LiveSet, overlay: Overlay) -> dict[str, Any]:
    """`beside`: how many live edits the exported weights lack; `warning`: a sentence, None if they lack nothing."""
    beside = sum(item.is_live for item in live_set.window)
    if overlay.adapter is None:
        return {"beside": 0, "warning": None}
    return {"beside": beside, "warning": window_warning(beside, len(live_set.live), len(live_set.window) - beside)}


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


def _lock_claim(connection: Connection, job: Job) -> bool:
    """Lock the head; whether the job is active and no other process has claimed it since."""
    heads.lock(connection)
    return _holds_claim(connection, job)


def _holds_claim(connection: Connection, job: Job) -> bool:
    stored = jobs.get(connection, job.id)
    return stored.claims == job.claims and stored.is_active


def _request_of(job: Job) -> Mapping[str, Any]:
    assert job.request is not None
    return job.request


def _count_files(folder: Path) -> ExportResult:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return ExportResult(folder, len(files), sum(path.stat().st_size for path in files))
