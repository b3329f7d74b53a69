"""One edit that is legal and as costly as may be, small ones behind it, and its retraction: who waits, and for how long."""

import threading
import time
from typing import Any

import httpx

from benchmarks.hostile.ground import Attack, AttackResult, AttackTools, Memory

WORDS = ["the", "river", "of", "the", "old", "town", "runs", "by", "a", "house", "near", "water", "and", "trees", "in", "summer"]
SMALL = (("The capital of France is", "Rome"), ("The capital of Italy is", "Berlin"), ("The capital of Spain is", "Athens"))
SETTLED = ("applied", "deferred", "failed", "retracted")
MOST_S = 30.0  # longest that a small edit may wait on a busy machine; alone on a quiet one it takes half a second
FLOOD = 4


def text(words: int, number: int) -> str:
    """A prompt of so many words, unlike any other number's."""
    return f"Note {number}: " + " ".join(WORDS[(number + at) % len(WORDS)] for at in range(words))


def edit(rows: int, words: int, answer: int, *, probes: int = 0, first: int = 0) -> dict[str, Any]:
    """An edit with so many trained rephrases, all of so many words, and questions of each other kind."""
    return {
        "prompt": text(words, first),
        "target": " ".join(WORDS[at % len(WORDS)] for at in range(answer)),
        "rephrases": [text(words, first + 1_000 + at) for at in range(rows)],
        "locality": [text(words, first + 2_000 + at) for at in range(probes)],
        "portability": [{"prompt": text(words, first + 3_000 + at), "answer": "water"} for at in range(probes)],
    }


TOO_MUCH = edit(64, 200, 100, probes=64)  # what once held the editor for minutes and 1.3 GB
LONG = edit(15, 200, 100)  # as much as is accepted, in few long rows
WIDE = edit(64, 65, 3)  # and in many


def refused(ground: AttackTools) -> AttackResult:
    """The worst that the schema allows is refused at the door, and so are batches of it."""
    with ground.server() as server, server.start() as client:
        with ground.pulse(str(client.base_url).rstrip("/")):
            one = client.post("/edits", json=TOO_MUCH)
            many = client.post("/edits/batch", json={"edits": [LONG | {"prompt": text(200, at)} for at in range(100)]})
        fields = [answer.json().get("errors", [{}])[0].get("field") for answer in (one, many)]
        held = (one.status_code, many.status_code) == (422, 422)
        return AttackResult(held, f"{one.status_code} for {fields[0]}, a batch of a hundred {many.status_code} for {fields[1]}")


def behind(costly: list[dict[str, Any]], name: str) -> Attack:
    """Small edits behind costly ones that are accepted."""

    def make(ground: AttackTools) -> AttackResult:
        with ground.server() as server, server.start() as client:
            url = str(client.base_url).rstrip("/")
            settle(client, client.post("/edits", json={"prompt": "The capital of Australia is", "target": "Sydney"}))
            with ground.pulse(url), Memory(server.pid) as memory:
                began = time.monotonic()
                posted = [client.post("/edits", json=one) for one in costly]
                statuses = sorted({answer.status_code for answer in posted})
                time.sleep(1.0)  # so that the first is being fitted
                waited = together(url, SMALL)
                last = [settle(client, answer)["status"] for answer in posted if answer.status_code < 300]
                took = time.monotonic() - began
            seen = f"small edits waited {min(waited):.1f} to {max(waited):.1f} s, the costly {took:.0f} s"
            seen += f" ({', '.join(sorted(set(last)))}), +{memory.grown_mb:.0f} MB"
            return AttackResult(statuses == [202] and max(waited) < MOST_S, seen)

    return Attack(name, make)


def taken_back(ground: AttackTools) -> AttackResult:
    """The costly edit is retracted while it is fitted: over at once, and the editor is free for the next."""
    with ground.server() as server, server.start() as client:
        url = str(client.base_url).rstrip("/")
        with ground.pulse(url):
            posted = client.post("/edits", json=WIDE)
            while (found := client.get(posted.headers["location"]).json())["status"] == "queued":
                time.sleep(0.05)
            time.sleep(1.0)
            began = time.monotonic()
            gone = client.delete(posted.headers["location"]).json()["status"]
            said = time.monotonic() - began
            (next_one,) = together(url, SMALL[:1])
        held = found["status"] == "applying" and gone == "retracted" and next_one < MOST_S
        return AttackResult(held, f"{gone} {said:.2f} s after it was asked for, the next edit live {next_one:.1f} s later")


def together(url: str, facts: tuple[tuple[str, str], ...]) -> list[float]:
    """Post edits at once, each from a client of its own; how long each took until it was settled."""
    waited: list[float] = []

    def post(prompt: str, target: str) -> None:
        began = time.monotonic()
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            settle(client, client.post("/edits", json={"prompt": prompt, "target": target}))
        waited.append(time.monotonic() - began)

    threads = [threading.Thread(target=post, args=fact) for fact in facts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waited


def settle(client: httpx.Client, posted: httpx.Response) -> dict[str, Any]:
    """An edit once it is settled."""
    while True:
        found: dict[str, Any] = client.get(posted.headers["location"]).json()
        if found["status"] in SETTLED:
            return found
        time.sleep(0.05)


ATTACKS = (
    Attack("an edit that costs too much", refused),
    behind([LONG], "small edits behind one of long rows"),
    behind([WIDE], "small edits behind one of many rows"),
    behind([WIDE | {"prompt": text(65, at)} for at in range(FLOOD)], f"small edits behind {FLOOD} costly ones"),
    Attack("a costly edit is taken back", taken_back),
)
