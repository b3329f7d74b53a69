"""A server that is killed again and again, and what must be true of it each time it comes back.

Nothing acknowledged is lost; nothing takes effect twice; every version says what it said before; live edits are answered.
A call that got no answer is *unknown*: it is sent again with the same idempotency key, and must then exist exactly once.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from threading import Timer
from typing import Any, Literal

import httpx
import sqlalchemy as sa

from benchmarks.servers import ServerProcess
from service.domain.errors import Unavailable

Work = Literal["edits", "rollback", "retrain"]
SETTLE_S = 120.0
DEATH_S = 60.0
MOST_ANSWERS = 80  # answers asked again after every restart
PAGE = 200


@dataclass(frozen=True)
class KillMoment:
    """When the server is killed: at a named point, or at a random time of up to `within_s` seconds after the work began."""

    work: Work
    point: str | None = None
    within_s: float = 0.0

    def __str__(self) -> str:
        return self.point or f"{self.work}, within {self.within_s} s"


@dataclass
class ClientLog:
    """What clients know: bodies by idempotency key, what was acknowledged, and what versions answered."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)  # key → id of the edit
    versions: set[int] = field(default_factory=set)  # published by a call that was answered
    retrains: list[str] = field(default_factory=list)
    said: dict[tuple[int, str], str] = field(default_factory=dict)


class CrashTrials:
    """One store that lives through many kills. `bodies` yields edits of which no two speak of one fact."""

    def __init__(self, server: ServerProcess, bodies: Iterator[dict[str, Any]], database_url: str, *, seed: int) -> None:
        self._server, self._bodies, self._rng = server, bodies, Random(seed)
        self._database = sa.create_engine(database_url)
        self.chronicle = ClientLog()
        self.kills = 0
        self.live = self.answered = 0  # live edits that were asked after all restarts, and those that were answered

    def close(self) -> None:
        self._database.dispose()

    def trial(self, moment: KillMoment) -> list[str]:
        """Work until the kill, start again, and say what is wrong; an empty list is a pass."""
        faults: list[str] = []
        try:
            with self._server.start(**({"fault_point": moment.point} if moment.point else {})) as client:
                timer = Timer(self._rng.uniform(0, moment.within_s), self._server.strike)
                if moment.point is None:
                    timer.start()
                self._work(client, moment.work)
                faults = [] if self._died() else [f"{moment}: never reached"]
                timer.cancel()
        except Unavailable:
            # A retrain that is due already may come to the point before the server is ready: that is a kill as well.
            if moment.point is None or not self._server.is_gone():
                raise
        self._server.kill()
        self.kills += 1
        with self._server.start() as client:
            faults += [f"{moment}: {fault}" for fault in self.examine(client)]
        self._server.kill()
        return faults

    def examine(self, client: httpx.Client) -> list[str]:
        """Everything that must hold of a server that came back."""
        for key in self.chronicle.sent.keys() - self.chronicle.acknowledged.keys():
            self._post(client, key)
        self._settle(client)
        faults = [*self._answers(client), *self._edits(client), *self._versions(client), *self._rows()]
        self._remember(client)
        return faults

    def _work(self, client: httpx.Client, work: Work) -> None:
        """Clients' work, until the server no longer answers."""
        try:
            for _ in range(2):
                self._post(client, self._new(), wait=30)
            if work == "rollback":
                self._roll_back(client)
            if work == "retrain":
                job = client.post("/admin/retrain", json={"reason": "crash"}).raise_for_status().json()
                self.chronicle.retrains.append(job["id"])
            while not self._server.is_gone():
                self._post(client, self._new(), wait=30 if work == "edits" else 0)
                if work == "rollback":
                    self._roll_back(client)
                if work == "retrain":
                    self._died()
        except httpx.TransportError:
            return

    def _died(self) -> bool:
        until = time.monotonic() + DEATH_S
        while not self._server.is_gone() and time.monotonic() < until:
            time.sleep(0.01)
        return self._server.is_gone()

    def _new(self) -> str:
        key = uuid.UUID(int=self._rng.getrandbits(128)).hex
        self.chronicle.sent[key] = next(self._bodies)
        return key

    def _post(self, client: httpx.Client, key: str, *, wait: float = 0) -> None:
        headers = {"Idempotency-Key": key}
        answer = client.post("/edits", params={"wait": wait}, json=self.chronicle.sent[key], headers=headers)
        self.chronicle.acknowledged[key] = answer.raise_for_status().json()["id"]

    def _roll_back(self, client: httpx.Client) -> None:
        """Back to one of the last few versions."""
        head = int(client.get("/versions/head").raise_for_status().json()["number"])
        to = self._rng.randrange(max(0, head - 3), head)
        answer = client.post("/admin/rollback", json={"to": to, "reason": "crash"})
        if answer.status_code == 200:
            self.chronicle.versions.add(answer.json()["version"])

    def _settle(self, client: httpx.Client) -> None:
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            jobs = [client.get(f"/jobs/{job}").raise_for_status().json() for job in self.chronicle.retrains]
            if not client.get("/model").raise_for_status().json()["waiting"] and all(job["finished_at"] for job in jobs):
                self.chronicle.retrains.clear()
                return
            time.sleep(0.05)
        raise TimeoutError("edits or retrains were still under way")

    def _edits(self, client: httpx.Client) -> Iterator[str]:
        found = self._all(client, "/edits")
        ids = {edit["id"] for edit in found}
        lost = [edit_id for edit_id in self.chronicle.acknowledged.values() if edit_id not in ids]
        if lost:
            yield f"{len(lost)} acknowledged edits are lost"
        twice = [prompt for prompt, count in Counter(edit["prompt"] for edit in found).items() if count > 1]
        if twice:
            yield f"{len(twice)} edits exist more than once"
        if len(found) != len(self.chronicle.sent):
            yield f"there are {len(found)} edits for {len(self.chronicle.sent)} submissions"
        failed = [edit for edit in found if edit["status"] in ("failed", "queued", "applying")]
        if failed:
            yield f"{len(failed)} edits are {failed[0]['status']}"
        for edit in found:
            if edit["status"] in ("applied", "consolidated"):
                answered = self._ask(client, edit["prompt"], "head") == edit["target"]
                self.live += 1
                self.answered += answered
                # Later fits ask the window again, but not what is consolidated: there a lost answer is no fault of a kill.
                if edit["status"] == "applied" and not answered:
                    yield "an edit of the window is not answered"

    def _versions(self, client: httpx.Client) -> Iterator[str]:
        found = {version["number"]: version for version in self._all(client, "/versions")}
        if self.chronicle.versions - found.keys():
            yield "an acknowledged rollback is lost"
        if sorted(found) != list(range(len(found))):
            yield "versions are not numbered without gaps"
        if any(version["parent"] != number - 1 for number, version in found.items() if number):
            yield "versions are not one line"
        if sum(version["head"] for version in found.values()) != 1 or not found[max(found)]["head"]:
            yield "the head is not the newest version"

    def _rows(self) -> Iterator[str]:
        """What only the database tells: no edit was learned by BaFT, as a new one, in more than one published version."""
        learned = sa.text(
            "SELECT events.edit_id, COUNT(*) FROM events JOIN versions ON versions.number = events.version "
            "WHERE events.type = 'edit.applied' AND versions.kind = 'baft' GROUP BY events.edit_id HAVING COUNT(*) > 1"
        )
        with self._database.connect() as connection:
            twice = connection.execute(learned).all()
        if twice:
            yield f"{len(twice)} edits were applied twice"

    def _answers(self, client: httpx.Client) -> Iterator[str]:
        changed = [key for key, text in self.chronicle.said.items() if self._ask(client, key[1], key[0]) != text]
        if changed:
            yield f"{len(changed)} of {len(self.chronicle.said)} answers are not what they were before the kill"

    def _remember(self, client: httpx.Client) -> None:
        """What the head says now, to be asked again after the next kill."""
        head = int(client.get("/versions/head").raise_for_status().json()["number"])
        for body in self._rng.sample(list(self.chronicle.sent.values()), min(10, len(self.chronicle.sent))):
            self.chronicle.said[head, body["prompt"]] = self._ask(client, body["prompt"], head)
        for key in list(self.chronicle.said)[:-MOST_ANSWERS]:
            del self.chronicle.said[key]

    def _ask(self, client: httpx.Client, prompt: str, version: int | str) -> str:
        asked = {"prompt": prompt, "version": version, "max_new_tokens": 24}
        return str(client.post("/generate", json=asked).raise_for_status().json()["text"])

    def _all(self, client: httpx.Client, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = client.get(path, params=query).raise_for_status().json()
            found += page["items"]
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]
