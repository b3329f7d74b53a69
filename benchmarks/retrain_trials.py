"""Trials of one retrain: it is killed at some moment and resumed, always from the same start, and checked.

All trials begin with copies of one data folder, so every retrain must publish the digest of the undisturbed one. The head answers
every edit after the restart, both before and after the retrain is resumed.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Timer
from typing import Any, Literal

from benchmarks.servers import ServerProcess, Zygote
from service.bench.neutral_cache import CACHE_FOLDER, cached_neutral
from service.client.errata_client import ErrataClient
from service.client.errors import Unreachable
from service.client.shapes import EditInput, JobData, VersionData

POINTS = ("retrain.middle", "retrain.before_publish", "publish.after_save", "publish.before_commit", "publish.after_commit")
ENDS_IN_S = 300.0
DEATH_S = 10.0
ON_REQUEST = {"method": "baft"}  # no retrain begins by itself


@dataclass(frozen=True)
class Kill:
    """A kill at a named crash point, or after a share of the undisturbed retrain's time."""

    point: str | None = None
    share: float = 0.0

    def __str__(self) -> str:
        return self.point or f"after {self.share:.0%} of the time"


@dataclass(frozen=True)
class UndisturbedRetrain:
    """The result and the time of a retrain without a kill."""

    digest: str | None
    seconds: float


class RetrainTrials:
    """Trials of one kind of retrain. `bodies` are edits; before a minor retrain one half of them is consolidated. Neutral
    sentences are in the folder `cache`.
    """

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        mode: Literal["minor", "major"],
        bodies: Sequence[EditInput],
        settings: Mapping[str, Any],
        *,
        cache: Path = CACHE_FOLDER,
    ) -> None:
        self._zygote, self._folder, self._mode, self._bodies = zygote, folder, mode, bodies
        self._settings = {**settings, **ON_REQUEST}
        self._trials = 0
        with cached_neutral(folder / "start" / "neutral", cache):
            self._create_start()
        self.undisturbed = self._run_undisturbed()

    def run_trial(self, kill: Kill) -> list[str]:
        """Retrain, kill, restart and check. Returns a sentence for each fault."""
        process = self._copy_start()
        faults: list[str] = []
        with process.start(**({"fault_point": kill.point} if kill.point else {})) as client:
            before = self._read_head(client)
            timer = Timer(kill.share * self.undisturbed.seconds, process.kill_without_waiting)
            try:
                job = self._request_retrain(client)
                if kill.point is None:
                    timer.start()
                self._wait(client, job)
            except Unreachable:
                pass
            timer.cancel()
            if kill.point is not None and not _dies(process):
                faults.append("the point was never reached")
        process.kill()
        with process.start() as client:
            after = self._read_head(client)
            if after["digest"] not in (before["digest"], self.undisturbed.digest):
                faults.append("the head is neither what it was nor what the retrain makes")
            faults += self._check_edits(client)
            for job in self._list_retrains(client):
                self._wait(client, job)
            if self._read_head(client)["digest"] != self.undisturbed.digest:
                faults.append("the digest is not that of the undisturbed retrain")
            faults += self._check_edits(client)
        process.kill()
        shutil.rmtree(process.folder)
        return faults

    def _create_start(self) -> None:
        """Create the data folder that every trial copies."""
        process = ServerProcess(self._zygote, self._folder / "start", **self._settings)
        first_count = len(self._bodies) // 2 if self._mode == "minor" else len(self._bodies)
        with process.start() as client:
            for number, body in enumerate(self._bodies):
                client.post_edit(body, wait_s=60)
                if number + 1 == first_count and self._mode == "minor":
                    self._wait(client, client.retrain("start", mode="major"))
            faults = self._check_edits(client)
        process.kill()
        if faults:
            raise RuntimeError("before any kill: " + "; ".join(faults))

    def _run_undisturbed(self) -> UndisturbedRetrain:
        process = self._copy_start()
        with process.start() as client:
            started_at = time.monotonic()
            job = self._wait(client, self._request_retrain(client))
            if job["mode"] != self._mode or job["status"] != "done":
                raise RuntimeError(f"the undisturbed retrain: {job['mode']}, {job['status']}: {job['error']}")
            result = UndisturbedRetrain(self._read_head(client)["digest"], time.monotonic() - started_at)
        process.kill()
        shutil.rmtree(process.folder)
        return result

    def _copy_start(self) -> ServerProcess:
        self._trials += 1
        folder = self._folder / f"trial-{self._trials}"
        shutil.copytree(self._folder / "start", folder)
        return ServerProcess(self._zygote, folder, **self._settings)

    def _request_retrain(self, client: ErrataClient) -> JobData:
        return client.retrain("trial", mode=self._mode)

    def _wait(self, client: ErrataClient, job: JobData) -> JobData:
        return client.wait_for_job(job, timeout_s=ENDS_IN_S)

    def _list_retrains(self, client: ErrataClient) -> list[JobData]:
        return list(client.list_jobs(kind=["retrain"]))

    def _read_head(self, client: ErrataClient) -> VersionData:
        return client.get_version("head")

    def _check_edits(self, client: ErrataClient) -> list[str]:
        """A sentence for each edit that is lost, not live or not answered."""
        edits = list(client.list_edits())
        faults = [] if len(edits) == len(self._bodies) else [f"there are {len(edits)} edits of {len(self._bodies)}"]
        for edit in edits:
            if edit["status"] not in ("applied", "consolidated"):
                faults.append(f"an edit is {edit['status']}")
                continue
            if client.generate(edit["prompt"], max_new_tokens=24)["text"] != edit["target"]:
                faults.append("an edit is not answered")
        return faults


def _dies(process: ServerProcess) -> bool:
    """Whether the process ends soon. After a commit, clients may see its effect a moment before the process ends."""
    deadline = time.monotonic() + DEATH_S
    while not process.is_gone() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.is_gone()


def choose_kills(count: int, rng: Random) -> list[Kill]:
    """Every named point once, then random times."""
    at_points = [Kill(point=point) for point in POINTS]
    at_times = [Kill(share=rng.random()) for _ in range(max(0, count - len(at_points)))]
    return [*at_points[:count], *at_times]
