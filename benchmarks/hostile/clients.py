"""Clients that go on asking while something is done to a server, and what each kind of question was answered with."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

PATIENCE_S = 120.0
PAUSE_S = 0.05


@dataclass
class ClientAnswerCounts:
    """Answers by kind of question: statuses with their numbers (0: no answer), and the slowest."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    worst_s: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, set[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record_answer(self, kind: str, status: int, seconds: float, body: str) -> None:
        """One answer."""
        with self.lock:
            self.statuses.setdefault(kind, Counter())[status] += 1
            self.worst_s[kind] = max(self.worst_s.get(kind, 0.0), seconds)
            if status == 200:
                self.bodies.setdefault(kind, set()).add(body)

    def summarise(self) -> str:
        """All of it in one line."""
        return "; ".join(
            f"{kind} {dict(sorted(counts.items()))} worst {self.worst_s[kind]:.1f} s"
            for kind, counts in sorted(self.statuses.items())
        )


ClientRequest = Callable[[httpx.Client, int], httpx.Response]


@contextmanager
def run_clients(url: str, questions: Mapping[str, tuple[int, ClientRequest]]) -> Iterator[ClientAnswerCounts]:
    """Ask until the block ends: of each kind so many clients, each again as soon as it was answered, or as `Retry-After` says. A
    question is given the number of the time it is asked.
    """
    counts, stop = ClientAnswerCounts(), threading.Event()

    def send_requests(kind: str, send: ClientRequest, first_number: int, client_count: int) -> None:
        number = first_number
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            while not stop.is_set():
                started_at, pause_s = time.monotonic(), PAUSE_S
                try:
                    answer = send(client, number)
                    pause_s = float(answer.headers.get("Retry-After", PAUSE_S)) if answer.status_code == 503 else PAUSE_S
                    counts.record_answer(kind, answer.status_code, time.monotonic() - started_at, answer.text)
                except httpx.TransportError:
                    counts.record_answer(kind, 0, time.monotonic() - started_at, "")
                number += client_count
                stop.wait(pause_s)

    threads = [
        threading.Thread(target=send_requests, args=(kind, send, first_number, client_count), daemon=True)
        for kind, (client_count, send) in questions.items()
        for first_number in range(client_count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def ask_generate(client: httpx.Client, _number: int) -> httpx.Response:
    """A short answer."""
    return client.get("/generate", params={"prompt": "The capital of France is"})


def ask_ready(client: httpx.Client, _number: int) -> httpx.Response:
    """Whether requests may be sent there."""
    return client.get("/health/ready")


def ask_edits(client: httpx.Client, _number: int) -> httpx.Response:
    """A page of edits."""
    return client.get("/edits", params={"limit": 5})


def post_edit(client: httpx.Client, number: int) -> httpx.Response:
    """A correction of a fact of its own, under a key of its own; LocFT-BF's, so that nothing is fitted for it at once."""
    edit = {"prompt": f"The colour of stone {number} is", "target": "red", "method": "locft"}
    return client.post("/edits", json=edit, headers={"Idempotency-Key": f"stone-{number}"})
