"""A server that is killed repeatedly, and the checks after each restart.

No acknowledged edit is lost. No call takes effect twice. Every version answers as before. Live edits are answered.
A call without an answer is *unknown*: it is sent again with the same idempotency key, and its edit must then exist exactly once.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from threading import Timer
from typing import Literal

import sqlalchemy as sa

from benchmarks.servers import ServerProcess
from service.client.errata_client import ErrataClient
from service.client.errors import ServerProblem, Unreachable
from service.client.shapes import EditInput
from service.domain.errors import Unavailable

Work = Literal["edits", "rollback", "retrain"]
SETTLE_S = 300.0  # a retrain of all edits of a run, on a busy machine
DEATH_S = 60.0
MOST_ANSWERS = 80  # that are compared after every restart


@dataclass(frozen=True)
class KillMoment:
    """The moment of a kill: at a named crash point, or at a random time up to `within_s` seconds after the work began."""

    work: Work
    point: str | None = None
    within_s: float = 0.0

    def __str__(self) -> str:
        return self.point or f"{self.work}, within {self.within_s} s"


@dataclass
class ClientLog:
    """The clients' record: bodies by idempotency key, acknowledged edits, and the answers of versions."""

    sent: dict[str, EditInput] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)  # key → id of the edit
    versions: set[int] = field(default_factory=set)  # published by a call that was answered
    retrains: list[str] = field(default_factory=list)
    answers: dict[tuple[int, str], str] = field(default_factory=dict)


class CrashTrials:
    """The trials of one store. `bodies` yields edits of distinct facts."""

    def __init__(self, server: ServerProcess, bodies: Iterator[EditInput], database_url: str, *, seed: int) -> None:
        self._server, self._bodies, self._rng = server, bodies, Random(seed)
        self._database = sa.create_engine(database_url)
        self.client_log = ClientLog()
        self.kills = 0
        self.live = self.answered = 0  # over all restarts: live edits, and those of them that were answered

    def close(self) -> None:
        self._database.dispose()

    def run_trial(self, moment: KillMoment) -> list[str]:
        """Work until the kill, restart, and check. Returns a sentence for each fault; an empty list is a pass."""
        faults: list[str] = []
        try:
            with self._server.start(**({"fault_point": moment.point} if moment.point else {})) as client:
                timer = Timer(self._rng.uniform(0, moment.within_s), self._server.kill_without_waiting)
                if moment.point is None:
                    timer.start()
                self._run_work(client, moment.work)
                faults = [] if self._wait_for_death() else [f"{moment}: never reached"]
                timer.cancel()
        except Unavailable:
            # A retrain that is due may reach the crash point before the server is ready, which is a kill, too.
            if moment.point is None or not self._server.is_gone():
                raise
        self._server.kill()
        self.kills += 1
        with self._server.start() as client:
            faults += [f"{moment}: {fault}" for fault in self.examine(client)]
        self._server.kill()
        return faults

    def examine(self, client: ErrataClient) -> list[str]:
        """All checks of a restarted server."""
        for key in self.client_log.sent.keys() - self.client_log.acknowledged.keys():
            self._post(client, key)
        self._wait_until_settled(client)
        faults = [*self._check_answers(client), *self._check_edits(client), *self._check_versions(client), *self._check_rows()]
        self._record_answers(client)
        return faults

    def _run_work(self, client: ErrataClient, work: Work) -> None:
        """The clients' work until the server no longer answers."""
        try:
            for _ in range(2):
                self._post(client, self._next_key(), wait=30)
            if work == "rollback":
                self._roll_back(client)
            if work == "retrain":
                self.client_log.retrains.append(client.retrain("crash")["id"])
            while not self._server.is_gone():
                self._post(client, self._next_key(), wait=30 if work == "edits" else 0)
                if work == "rollback":
                    self._roll_back(client)
                if work == "retrain":
                    self._wait_for_death()
        except Unreachable:
            return

    def _wait_for_death(self) -> bool:
        deadline = time.monotonic() + DEATH_S
        while not self._server.is_gone() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._server.is_gone()

    def _next_key(self) -> str:
        key = uuid.UUID(int=self._rng.getrandbits(128)).hex
        self.client_log.sent[key] = next(self._bodies)
        return key

    def _post(self, client: ErrataClient, key: str, *, wait: float = 0) -> None:
        self.client_log.acknowledged[key] = client.post_edit(self.client_log.sent[key], wait_s=wait, key=key)["id"]

    def _roll_back(self, client: ErrataClient) -> None:
        """Back to one of the last few versions."""
        head = client.get_version("head")["number"]
        target = self._rng.randrange(max(0, head - 3), head)
        with suppress(ServerProblem):
            self.client_log.versions.add(client.rollback(target, "crash")["version"])

    def _wait_until_settled(self, client: ErrataClient) -> None:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            jobs = [client.get_job(job) for job in self.client_log.retrains]
            if not client.get_model()["waiting"] and all(job["finished_at"] for job in jobs):
                self.client_log.retrains.clear()
                return
            time.sleep(0.05)
        raise TimeoutError("edits or retrains were still under way")

    def _check_edits(self, client: ErrataClient) -> Iterator[str]:
        edits = list(client.list_edits())
        ids = {edit["id"] for edit in edits}
        lost_ids = [edit_id for edit_id in self.client_log.acknowledged.values() if edit_id not in ids]
        if lost_ids:
            yield f"{len(lost_ids)} acknowledged edits are lost"
        repeated = [prompt for prompt, count in Counter(edit["prompt"] for edit in edits).items() if count > 1]
        if repeated:
            yield f"{len(repeated)} edits exist more than once"
        if len(edits) != len(self.client_log.sent):
            yield f"there are {len(edits)} edits for {len(self.client_log.sent)} submissions"
        failed = [edit for edit in edits if edit["status"] in ("failed", "queued", "applying")]
        if failed:
            yield f"{len(failed)} edits are {failed[0]['status']}"
        for edit in edits:
            if edit["status"] in ("applied", "consolidated"):
                is_answered = self._generate(client, edit["prompt"], "head") == edit["target"]
                self.live += 1
                self.answered += is_answered
                # Later fits replay the window, but not consolidated edits: a lost answer of theirs is no fault of a kill.
                if edit["status"] == "applied" and not is_answered:
                    yield "an edit of the window is not answered"

    def _check_versions(self, client: ErrataClient) -> Iterator[str]:
        versions = {version["number"]: version for version in client.list_versions()}
        if self.client_log.versions - versions.keys():
            yield "an acknowledged rollback is lost"
        if sorted(versions) != list(range(len(versions))):
            yield "versions are not numbered without gaps"
        if any(version["parent"] != number - 1 for number, version in versions.items() if number):
            yield "versions are not one line"
        if sum(version["head"] for version in versions.values()) != 1 or not versions[max(versions)]["head"]:
            yield "the head is not the newest version"

    def _check_rows(self) -> Iterator[str]:
        """A check in the database: BaFT published no edit as a new one in more than one version."""
        query = sa.text(
            "SELECT events.edit_id, COUNT(*) FROM events JOIN versions ON versions.number = events.version "
            "WHERE events.type = 'edit.applied' AND versions.kind = 'baft' GROUP BY events.edit_id HAVING COUNT(*) > 1"
        )
        with self._database.connect() as connection:
            repeated = connection.execute(query).all()
        if repeated:
            yield f"{len(repeated)} edits were applied twice"

    def _check_answers(self, client: ErrataClient) -> Iterator[str]:
        changed = [key for key, text in self.client_log.answers.items() if self._generate(client, key[1], key[0]) != text]
        if changed:
            yield f"{len(changed)} of {len(self.client_log.answers)} answers are not what they were before the kill"

    def _record_answers(self, client: ErrataClient) -> None:
        """Record answers of the head, for comparison after the next kill."""
        head = client.get_version("head")["number"]
        for body in self._rng.sample(list(self.client_log.sent.values()), min(10, len(self.client_log.sent))):
            self.client_log.answers[head, body["prompt"]] = self._generate(client, body["prompt"], head)
        for key in list(self.client_log.answers)[:-MOST_ANSWERS]:
            del self.client_log.answers[key]

    def _generate(self, client: ErrataClient, prompt: str, version: int | str) -> str:
        return client.generate(prompt, version=version, max_new_tokens=24)["text"]
