"""The service as it is by default: its store, its worker and the retrains it makes by itself, in this process, without HTTP."""

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.atlas import Ground, edit_of
from benchmarks.servers import KEPT
from service.app import open_parts
from service.domain.cadence import retrain_reason
from service.evaluation.record import Record
from service.lifecycle.standing import standing_of
from service.lifecycle.submit import submit
from service.lm.overlay import Overlay
from service.settings import load_settings
from service.store import edits, heads, jobs, versions

KINDS = ("apply", "refit", "retrain")
LOOK_S = 0.02
PATIENCE_S = 300.0
DEFERRED_S = 5.0  # a deferred edit may wait 300 s by default; here edits come one on the other, and time is as much shorter


class ThroughService:
    """A store of its own; every edit is submitted and waited for, as a client with `wait` would."""

    def __init__(self, place: Ground) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="errata-stream-"))
        shutil.copytree(KEPT, self._folder / "neutral")
        settings = load_settings(data_dir=self._folder, model=place.model, log_level="error", window={"deferred_s": DEFERRED_S})
        self._cadence = settings.window.cadence(settings.method)
        self._opened = ExitStack()
        self._parts = self._opened.enter_context(open_parts(settings))

    def take(self, record: Record, seq: int) -> None:
        [edit] = submit(self._parts.store, [edit_of(record, seq)], author="benchmark", ring=self._parts.ring).edits
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with self._parts.store.read() as connection:
                if edits.get(connection, edit.id).status.is_settled:
                    return
            time.sleep(LOOK_S)
        raise TimeoutError("an edit was not settled in time")

    def overlay(self) -> Overlay:
        """What is answered once nothing is under way: a retrain that the last edit made due has been published."""
        until = time.monotonic() + PATIENCE_S
        while not self._is_idle() and time.monotonic() < until:
            time.sleep(LOOK_S)
        return self._parts.lifecycle.follower.current.overlay

    def facts(self) -> dict[str, object]:
        """How it came to its head: retrains so far, edits in the window, edits by status."""
        with self._parts.store.read() as connection:
            head = versions.get(connection, heads.read(connection).version)
            made = versions.page(connection, limit=10_000)
            counts = {status: count for status, count in edits.counts(connection).items() if count}
        return {"retrains": sum(version.kind == "locft" for version in made), "window": head.window, "statuses": counts}

    def close(self) -> None:
        self._opened.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_idle(self) -> bool:
        with self._parts.store.read() as connection:
            if any(jobs.active(connection, kind) for kind in KINDS):
                return False
            counts = edits.counts(connection)
            standing = standing_of(connection, self._parts.lifecycle)
        if counts["queued"] or counts["applying"] or (standing.deferred and not standing.retrain_failed):
            return False
        return retrain_reason(standing, self._cadence) is None
