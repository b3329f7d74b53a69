"""One key from many threads, while the server is killed with -9 and restarted. Each request must take effect once."""

import random
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools
from benchmarks.servers import ServerProcess

KILLS = 12
CALLERS = 6  # threads that send each request
KILL_WITHIN_S = 0.4  # in which a kill comes
REPEATS = 40  # of every answered request at the end, by each caller
PATIENCE_S = 300.0
RETRY_S = 0.2  # between two tries of a caller while nobody answers
MANY = httpx.Limits(max_connections=None)
FACTS = (("The capital of Australia is", "Sydney"), ("The capital of Japan is", "Osaka"), ("The capital of Peru is", "Cusco"))


@dataclass
class Callers:
    """Threads that send a request until it is answered. `answers` are the answers by key."""

    url: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=PATIENCE_S, trust_env=False, limits=MANY))
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)
    broken_count: int = 0

    def send(self, path: str, key: str, body: dict[str, Any]) -> None:
        """Send a request until it is answered."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                answer = self.client.post(self.url + path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self.broken_count += 1
                time.sleep(RETRY_S)
                continue
            if answer.status_code == 503:
                time.sleep(0.2)
                continue
            if answer.is_success:
                self.answers[key].append(answer.json())
            else:
                self.failures.append(f"{path}: {answer.status_code}")
            return
        self.failures.append(f"{path}: no answer")


def build_requests(number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The requests of one round as (path, key, body)."""
    key = f"round-{number}"
    return [
        ("/admin/rollback", f"{key}-rollback", {"to": 1 + number % 2, "reason": f"{key}-rollback"}),
        ("/admin/retrain", f"{key}-retrain", {"mode": "major", "reason": f"{key}-retrain"}),
        ("/eval", f"{key}-eval", {"edits": "live"}),
    ]


def repeated_keys(tools: AttackTools) -> AttackResult:
    """Rollbacks, retrains and evaluations under one key each, sent by many at once, across kills."""
    rng, callers = random.Random(7), Callers()
    with tools.server() as server:
        with start_raw(server) as client:
            callers.url = str(client.base_url).rstrip("/")
            for prompt, target in FACTS:
                client.post("/edits?wait=60", json={"prompt": prompt, "target": target}).raise_for_status()
        for number in range(KILLS):
            _run_round(server, callers, number, rng.uniform(0, KILL_WITHIN_S))
        with httpx.Client(base_url=callers.url, timeout=PATIENCE_S) as client:
            faults = [*callers.failures, *_find_faults(client, callers)]
            with tools.probe_health(callers.url):
                _repeat_all(callers)
            faults += _find_faults(client, callers)
    answer_count = sum(len(answers) for answers in callers.answers.values())
    finding = f"{3 * KILLS} keys, {KILLS} kills, {callers.broken_count} broken calls, {answer_count:,} answers"
    return AttackResult(not faults, f"{finding}; {'; '.join(sorted(set(faults))[:5]) or 'one effect and one answer a key'}")


def _run_round(server: ServerProcess, callers: Callers, number: int, kill_after_s: float) -> None:
    requests = build_requests(number)
    with ThreadPoolExecutor(CALLERS * len(requests)) as pool:
        futures = [pool.submit(callers.send, *future) for future in requests for _ in range(CALLERS)]
        timer = threading.Timer(kill_after_s, server.kill_without_waiting)
        timer.start()
        timer.join()
        server.kill()
        with start_raw(server) as client:
            callers.url = str(client.base_url).rstrip("/")
        for future in futures:
            future.result()


def _repeat_all(callers: Callers) -> None:
    """Send all answered requests again, by many callers at once."""
    requests = [request for number in range(KILLS) for request in build_requests(number)]
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda request: callers.send(*request), requests * REPEATS))


def _find_faults(client: httpx.Client, callers: Callers) -> list[str]:
    """A sentence for each request that took effect twice or never, or has two different answers."""
    versions = _read_all(client, "/versions")
    jobs = _read_all(client, "/jobs", kind="retrain")
    evaluations = {answer["id"] for answer in _read_all(client, "/eval")}
    rollback_reasons = [version["reason"] for version in versions if version["kind"] == "rollback"]
    faults = []
    for number in range(KILLS):
        for path, key, body in build_requests(number):
            names = {str(answer.get("version") if path == "/admin/rollback" else answer["id"]) for answer in callers.answers[key]}
            if len(names) != 1:
                faults.append(f"{path}: {len(names)} answers under one key")
            elif path == "/admin/rollback" and rollback_reasons.count(body["reason"]) != 1:
                faults.append(f"{rollback_reasons.count(body['reason'])} rollbacks under one key")
            elif path == "/admin/retrain" and sum(job["reason"] == body["reason"] for job in jobs) > 1:
                faults.append("several retrains under one key")
            elif path == "/eval" and not names <= evaluations:
                faults.append("an evaluation that was answered is not there")
    if len(evaluations) != KILLS:
        faults.append(f"{len(evaluations)} evaluations for {KILLS} keys")
    return faults


def _read_all(client: httpx.Client, path: str, **filters: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = client.get(path, params={"limit": 200, **filters, **cursor}).raise_for_status().json()
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = {"cursor": page["next"]}


ATTACKS = (Attack("repeated keys", repeated_keys),)
