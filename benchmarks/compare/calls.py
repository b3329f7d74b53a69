"""The calls of a comparison. Each waits for its outcome, and raises if the outcome is not the expected one."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import httpx

from benchmarks.compare.facts import PROMPTS, EditFact

WAIT_S = 60
ENDS_IN_S = 300.0
POLL_S = 0.01
PAGE = 200
ANSWER_TOKENS = 16
Json = dict[str, Any]


def post_edit(client: httpx.Client, fact: EditFact, target: str | None = None) -> Json:
    """Apply a fact as an edit. `target` replaces the fact's target."""
    body = {
        "prompt": fact.prompt,
        "target": target or fact.target,
        "subject": fact.subject,
        "relation": fact.relation,
        "rephrases": [fact.rephrase],
    }
    edit: Json = client.post("/edits", params={"wait": WAIT_S}, json=body).raise_for_status().json()
    if edit["status"] not in ("applied", "deferred"):
        raise RuntimeError(f"an edit is {edit['status']}: {edit['error']}")
    return edit


def retrain(client: httpx.Client, mode: Literal["minor", "major"]) -> Json:
    """Request a retrain and wait until its job ends."""
    job: Json = client.post("/admin/retrain", json={"reason": "comparison", "mode": mode}).raise_for_status().json()
    deadline = time.monotonic() + ENDS_IN_S
    while job["finished_at"] is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
        job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "done":
        raise RuntimeError(f"a retrain is {job['status']}: {job['error']}")
    return job


def roll_back(client: httpx.Client, version: int) -> int:
    """Publish an older version again. Returns the new version number."""
    answer = client.post("/admin/rollback", json={"to": version, "reason": "comparison"}).raise_for_status().json()
    return int(answer["version"])


def retract(client: httpx.Client, edit: Json) -> None:
    """Retract an edit, and wait until the model no longer answers with it."""
    client.delete(f"/edits/{edit['id']}", params={"wait": WAIT_S}).raise_for_status()


def read_head(client: httpx.Client) -> int:
    """The number of the head."""
    return int(client.get("/versions/head").raise_for_status().json()["number"])


def read_all(client: httpx.Client, path: str) -> list[Json]:
    """All items of a list, oldest first."""
    items: list[Json] = []
    query: Json = {"limit": PAGE}
    while True:
        page = client.get(path, params=query).raise_for_status().json()
        items += page["items"]
        if page["next"] is None:
            return items[::-1]
        query["cursor"] = page["next"]


def generate_all(client: httpx.Client, version: int, questions: Sequence[str] = PROMPTS) -> dict[str, str]:
    """A version's greedy answer to each prompt."""
    return {question: generate(client, question, str(version)) for question in questions}


def generate(client: httpx.Client, question: str, version: str = "head") -> str:
    """A version's greedy answer to a prompt."""
    query: dict[str, str | int] = {"prompt": question, "version": version, "max_new_tokens": ANSWER_TOKENS}
    return str(client.get("/generate", params=query).raise_for_status().json()["text"])
