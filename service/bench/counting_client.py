"""A client that counts the requests of a benchmark and records every failure."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.evaluation.merging import merge_results
from service.evaluation.records import Record, to_json

EVAL_RECORDS = 250  # of one evaluation, so that a request body is well under the server's limit
POLL_S = 0.2
Answer = Mapping[str, Any]


@dataclass
class CountingClient:
    """A client with the number of its requests, and a sentence for each that failed."""

    client: httpx.Client
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def send(self, method: str, path: str, **options: Any) -> dict[str, Any] | None:
        """Send one request. Returns the answer's JSON, or None if there was no answer or its status is not 2xx."""
        self.requests += 1
        try:
            answer = self.client.request(method, path, **options)
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {_path_without_ids(path)}: {type(error).__name__}")
            return None
        if not answer.is_success:
            self.failures.append(f"{method} {_path_without_ids(path)}: {answer.status_code} {_error_detail(answer)}")
            return None
        content: dict[str, Any] = answer.json()
        return content

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, newest first."""
        cursor: dict[str, Any] = {}
        while True:
            page = self.send("GET", path, params={**params, **cursor, "limit": 200})
            if page is None:
                return
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}


def evaluate(
    client: CountingClient, records: Sequence[Record], version: int, *, capability: bool, patience_s: float
) -> dict[str, Any] | None:
    """Let the server evaluate a version on records. Returns None if an evaluation failed.

    Many records are several evaluations of the same version, whose results are merged.
    """
    results: list[dict[str, Any]] = []
    for start in range(0, len(records), EVAL_RECORDS):
        body = {
            "version": version,
            "edits": [to_json(record) for record in records[start : start + EVAL_RECORDS]],
            "capability": capability and start == 0,
        }
        result = _evaluate_once(client, body, patience_s)
        if result is None:
            return None
        results.append(result)
    return merge_results(results)


def _evaluate_once(client: CountingClient, body: Answer, patience_s: float) -> dict[str, Any] | None:
    accepted_evaluation = client.send("POST", "/eval", json=body)
    deadline = time.monotonic() + patience_s
    while accepted_evaluation is not None and time.monotonic() < deadline:
        evaluation = client.send("GET", f"/eval/{accepted_evaluation['id']}")
        if evaluation is not None and evaluation["status"] == "done":
            result: dict[str, Any] = evaluation["result"]
            return result
        if evaluation is not None and evaluation["status"] not in ("queued", "running"):
            client.failures.append(f"evaluation: {evaluation['status']}: {evaluation['error']}")
            return None
        time.sleep(POLL_S)
    if accepted_evaluation is not None:
        client.failures.append("evaluation: not done in time")
    return None


def _path_without_ids(path: str) -> str:
    """A path without ids, so that equal failures have equal sentences."""
    return "/".join(part if len(part) < 20 else "…" for part in path.split("/"))


def _error_detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail", ""))
    except (json.JSONDecodeError, AttributeError):
        return ""
