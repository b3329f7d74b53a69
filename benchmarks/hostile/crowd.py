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

    def note(self, kind: str, status: int, seconds: float, body: str) -> None:
        """One answer."""
        with self.lock:
            self.statuses.setdefault(kind, Counter())[status] += 1
            self.worst_s[kind] = max(self.worst_s.get(kind, 0.0), seconds)
            if status == 200:
                self.bodies.setdefault(kind, set()).add(body)

    def said(self) -> str:
        """All of it in one line."""
        return "; ".join(
            f"{kind} {dict(sorted(found.items()))} worst {self.worst_s[kind]:.1f} s"
            for kind, found in sorted(self.statuses.items())
        )


Question = Callable[[httpx.Client, int], httpx.Response]


@contextmanager
def run_clients(url: str, questions: Mapping[str, tuple[int, Question]]) -> Iterator[ClientAnswerCounts]:
    """Ask until the block ends: of each kind so many clients, each again as soon as it was answered, or as `Retry-After` says. A
    question is given the number of the time it is asked.
    """
    found, over = ClientAnswerCounts(), threading.Event()

    def go_on(kind: str, ask: Question, place: int, many: int) -> None:
        number = place
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            while not over.is_set():
                began, pause_s = time.monotonic(), PAUSE_S
                try:
                    answer = ask(client, number)
                    pause_s = float(answer.headers.get("Retry-After", PAUSE_S)) if answer.status_code == 503 else PAUSE_S
                    found.note(kind, answer.status_code, time.monotonic() - began, answer.text)
                except httpx.TransportError:
                    found.note(kind, 0, time.monotonic() - began, "")
                number += many
                over.wait(pause_s)

    threads = [
        threading.Thread(target=go_on, args=(kind, ask, place, many), daemon=True)
        for kind, (many, ask) in questions.items()
        for place in range(many)
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
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
