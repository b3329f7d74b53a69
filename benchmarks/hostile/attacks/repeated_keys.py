"""One key from many threads, while the server is killed with -9 and started again: each thing that was asked for happens once."""

import random
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.hostile.ground import Attack, AttackResult, AttackTools
from benchmarks.servers import ServerProcess

KILLS = 12
CALLERS = 6  # threads that send each request
WITHIN_S = 0.4  # in which a kill comes
AGAIN = 40  # times that each caller repeats what was answered, at the end
PATIENCE_S = 300.0
AWAY_S = 0.2  # between two tries of a caller while nobody answers
MANY = httpx.Limits(max_connections=None)
FACTS = (("The capital of Australia is", "Sydney"), ("The capital of Japan is", "Osaka"), ("The capital of Peru is", "Cusco"))


@dataclass
class Callers:
    """Threads that send one request until it is answered; `answers` are what each key was answered with."""

    where: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=PATIENCE_S, trust_env=False, limits=MANY))
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list)
    broken: int = 0

    def send(self, path: str, key: str, body: dict[str, Any]) -> None:
        """Send it until it is answered."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                answer = self.client.post(self.where + path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self.broken += 1
                time.sleep(AWAY_S)
                continue
            if answer.status_code == 503:
                time.sleep(0.2)
                continue
            if answer.is_success:
                self.answers[key].append(answer.json())
            else:
                self.refused.append(f"{path}: {answer.status_code}")
            return
        self.refused.append(f"{path}: no answer")


def build_requests(number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """What the callers of one round send: path, key, body."""
    key = f"round-{number}"
    return [
        ("/admin/rollback", f"{key}-rollback", {"to": 1 + number % 2, "reason": f"{key}-rollback"}),
        ("/admin/retrain", f"{key}-retrain", {"mode": "major", "reason": f"{key}-retrain"}),
        ("/eval", f"{key}-eval", {"edits": "live"}),
    ]


def repeated_keys(ground: AttackTools) -> AttackResult:
    """Rollbacks, retrains and evaluations under one key each, sent by many at once, across kills."""
    draw, callers = random.Random(7), Callers()
    with ground.server() as server:
        with server.start() as client:
            callers.where = str(client.base_url).rstrip("/")
            for prompt, target in FACTS:
                client.post("/edits?wait=60", json={"prompt": prompt, "target": target}).raise_for_status()
        for number in range(KILLS):
            _round(server, callers, number, draw.uniform(0, WITHIN_S))
        with httpx.Client(base_url=callers.where, timeout=PATIENCE_S) as client:
            faults = [*callers.refused, *_faults(client, callers)]
            with ground.pulse(callers.where):
                _storm(callers)
            faults += _faults(client, callers)
    sent = sum(len(given) for given in callers.answers.values())
    seen = f"{3 * KILLS} keys, {KILLS} kills, {callers.broken} broken calls, {sent:,} answers"
    return AttackResult(not faults, f"{seen}; {'; '.join(sorted(set(faults))[:5]) or 'one effect and one answer a key'}")


def _round(server: ServerProcess, callers: Callers, number: int, kill_after_s: float) -> None:
    wanted = build_requests(number)
    with ThreadPoolExecutor(CALLERS * len(wanted)) as pool:
        sent = [pool.submit(callers.send, *one) for one in wanted for _ in range(CALLERS)]
        timer = threading.Timer(kill_after_s, server.strike)
        timer.start()
        timer.join()
        server.kill()
        with server.start() as client:
            callers.where = str(client.base_url).rstrip("/")
        for one in sent:
            one.result()


def _storm(callers: Callers) -> None:
    """Everything that was answered is asked for again, by many at once."""
    again = [one for number in range(KILLS) for one in build_requests(number)]
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda one: callers.send(*one), again * AGAIN))


def _faults(client: httpx.Client, callers: Callers) -> list[str]:
    """What was done more than once or never, or answered in two ways."""
    versions = _all(client, "/versions")
    jobs = _all(client, "/jobs", kind="retrain")
    evaluations = {one["id"] for one in _all(client, "/eval")}
    rolled = [version["reason"] for version in versions if version["kind"] == "rollback"]
    faults = []
    for number in range(KILLS):
        for path, key, body in build_requests(number):
            names = {str(one.get("version") if path == "/admin/rollback" else one["id"]) for one in callers.answers[key]}
            if len(names) != 1:
                faults.append(f"{path}: {len(names)} answers under one key")
            elif path == "/admin/rollback" and rolled.count(body["reason"]) != 1:
                faults.append(f"{rolled.count(body['reason'])} rollbacks under one key")
            elif path == "/admin/retrain" and sum(job["reason"] == body["reason"] for job in jobs) > 1:
                faults.append("several retrains under one key")
            elif path == "/eval" and not names <= evaluations:
                faults.append("an evaluation that was answered is not there")
    if len(evaluations) != KILLS:
        faults.append(f"{len(evaluations)} evaluations for {KILLS} keys")
    return faults


def _all(client: httpx.Client, path: str, **narrowed: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = client.get(path, params={"limit": 200, **narrowed, **cursor}).raise_for_status().json()
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


ATTACKS = (Attack("repeated keys", repeated_keys),)
