"""Clients that send requests during an attack, and the answers by kind of request."""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.servers import ServerProcess

PATIENCE_S = 120.0
PAUSE_S = 0.05
# One for all clients: a context takes tens of milliseconds of processor time, and seventy would take seconds from the server.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class ClientAnswerCounts:
    """Answers by kind of request: counts of statuses (0: no answer), the slowest answer, and the distinct bodies."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    worst_s: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, set[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record_answer(self, kind: str, status: int, seconds: float, body: str) -> None:
        """Count one answer."""
        with self.lock:
            self.statuses.setdefault(kind, Counter())[status] += 1
            self.worst_s[kind] = max(self.worst_s.get(kind, 0.0), seconds)
            if status == 200:
                self.bodies.setdefault(kind, set()).add(body)

    def summarise(self) -> str:
        """All counts in one line."""
        return "; ".join(
            f"{kind} {dict(sorted(counts.items()))} worst {self.worst_s[kind]:.1f} s"
            for kind, counts in sorted(self.statuses.items())
        )


ClientRequest = Callable[[httpx.Client, int], httpx.Response]


def start_raw(server: ServerProcess, **overrides: Any) -> httpx.Client:
    """Start a server. Returns a client that sends whatever it is given: the product's own client would not send it."""
    return httpx.Client(base_url=server.launch(**overrides), timeout=PATIENCE_S)


@contextmanager
def run_clients(url: str, questions: Mapping[str, tuple[int, ClientRequest]]) -> Iterator[ClientAnswerCounts]:
    """Send requests until the block ends. `questions` has, by kind, the number of clients and the request.

    A client sends its next request after the answer, or after the time of `Retry-After`. A request gets its own number.
    """
    counts, stop = ClientAnswerCounts(), threading.Event()

    def send_requests(kind: str, send: ClientRequest, first_number: int, client_count: int) -> None:
        number = first_number
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False, verify=NO_TLS) as client:
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
    """Whether the server is ready."""
    return client.get("/health/ready")


def ask_edits(client: httpx.Client, _number: int) -> httpx.Response:
    """A page of edits."""
    return client.get("/edits", params={"limit": 5})


def post_edit(client: httpx.Client, number: int) -> httpx.Response:
    """An edit of a distinct fact with its own key, by LocFT-BF, so that no fit begins at once."""
    edit = {"prompt": f"The colour of stone {number} is", "target": "red", "method": "locft"}
    return client.post("/edits", json=edit, headers={"Idempotency-Key": f"stone-{number}"})
