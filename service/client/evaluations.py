"""The calls of `errata eval` to a server, over HTTP: evaluations of records in bounded requests, edits, their statuses, retrains.

Reads and posts are repeated while the server is busy or away for a moment, because a run takes hours; a repeated post has the
same idempotency key.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from service.client.retries import AWAY_S, BUSY_S, POLL_S, post_with_retries
from service.client.startup import Progress, ignore_progress
from service.client.waiting import UNSETTLED, WAITING, wait_until_live
from service.domain.errors import Conflict, Refused
from service.evaluation.merging import merge_results
from service.evaluation.records import Record, to_edit_request, to_json

MAX_RECORDS = 1_000  # of one evaluation: the server's limit
MAX_BYTES = 4_000_000  # of one request: half of the server's default limit
IDLE_S = 2.0  # after so long without a retrain, none is expected to begin by itself
RECORD_FIELDS = (
    "prompt",
    "target",
    "ground_truth",
    "rephrases",
    "locality",
    "portability",
    "generation",
    "wanted",
    "opposite",
)


@dataclass
class EvaluationClient:
    """A client of one server. `refused` holds the records that the server refuses, each with the server's reason."""

    client: httpx.Client
    metrics: str = "standard"
    progress: Progress = ignore_progress
    refused: dict[str, str] = field(default_factory=dict)  # record id → reason
    edit_ids: dict[str, str] = field(default_factory=dict)  # record id → edit id

    def measure(self, version: int | str, selection: Sequence[Record] | str, *, capability: bool = False) -> dict[str, Any]:
        """The result on records, or on the `live` edits, with the ids of its evaluations; merged by their n."""
        if isinstance(selection, str):
            return _merge([self._evaluate_edits(version, selection, capability)])
        evaluations: list[dict[str, Any] | None] = []
        for batch in _batches([record for record in selection if record.id not in self.refused]):
            evaluations.append(self._evaluate_records(version, batch, capability and not evaluations))
        return _merge([evaluation for evaluation in evaluations if evaluation is not None])

    def apply(self, records: Sequence[Record]) -> dict[str, str]:
        """Post records as edits and wait until all are settled: {record id: status}, without the records that are refused."""
        statuses: dict[str, str] = {}
        for batch in _batches([record for record in records if record.id not in self.refused]):
            response = self._post(batch, lambda records: ("/edits/batch", {"edits": [_edit_body(record) for record in records]}))
            accepted = [record.id for record in batch if record.id not in self.refused]
            edit_ids = () if response is None else (edit["id"] for edit in response.json()["items"])
            self.edit_ids |= zip(accepted, edit_ids, strict=True)
            statuses |= {record_id: self._wait_until_settled(self.edit_ids[record_id]) for record_id in accepted}
        return statuses

    def wait_until_live(self) -> Counter[str]:
        """Wait until no posted edit is queued, applying or deferred; the edits that still are, counted by status. If no retrain
        comes for deferred edits, a retrain is requested. Raises Conflict if that retrain fails.
        """
        if not self._wait_until_live()["deferred"]:
            return Counter()
        self.retrain("errata eval: edits are deferred")
        return self._wait_until_live()

    def count_statuses(self) -> Counter[str]:
        """The number of posted edits with each status."""
        return Counter(str(self._get(f"/edits/{edit_id}")["status"]) for edit_id in self.edit_ids.values())

    def read_head(self) -> int:
        """The number of the head."""
        return int(self._get("/versions/head")["number"])

    def retrain(self, reason: str, mode: str | None = None) -> dict[str, Any]:
        """Run a retrain and wait for its end; without a mode the server chooses minor or major. Raises Conflict if it fails."""
        job = post_with_retries(self.client, "/admin/retrain", {"reason": reason, "mode": mode}).raise_for_status().json()
        while job["finished_at"] is None:
            time.sleep(POLL_S)
            job = self._get(f"/jobs/{job['id']}")
            self.progress(f"retrain: {job['progress']:.0%}")
        if job["status"] != "done":
            raise Conflict(f"the retrain did not end well: {job['error'] or job['status']}")
        return {"job": job["id"], "version": job["version"]}

    def _wait_until_live(self) -> Counter[str]:
        return wait_until_live(self._count_waiting, self._retrain_is_underway, patience_s=inf, idle_s=IDLE_S)

    def _count_waiting(self) -> Counter[str]:
        own = set(self.edit_ids.values())
        return Counter(status for status in WAITING for edit in self._get_items("/edits", status=status) if edit["id"] in own)

    def _retrain_is_underway(self) -> bool:
        last = self._get("/jobs", kind="retrain", limit=1)["items"]
        return bool(last) and last[0]["status"] in ("queued", "running")

    def _evaluate_records(self, version: int | str, records: Sequence[Record], capability: bool) -> dict[str, Any] | None:
        def request(records: Sequence[Record]) -> tuple[str, dict[str, Any]]:
            return "/eval", self._body(version, [to_json(record) for record in records], capability)

        response = self._post(records, request)
        return None if response is None else self._wait_until_done(response.json())

    def _evaluate_edits(self, version: int | str, selection: str, capability: bool) -> dict[str, Any]:
        response = post_with_retries(self.client, "/eval", self._body(version, selection, capability))
        return self._wait_until_done(response.raise_for_status().json())

    def _body(self, version: int | str, edits: Any, capability: bool) -> dict[str, Any]:
        return {"version": version, "edits": edits, "metrics": self.metrics, "capability": capability}

    def _post(
        self, records: Sequence[Record], request: Callable[[Sequence[Record]], tuple[str, dict[str, Any]]]
    ) -> httpx.Response | None:
        """Post records, without those that the server refuses one by one; None if none is left."""
        accepted = list(records)
        while accepted:
            response = post_with_retries(self.client, *request(accepted))
            index = _refused_index(response, len(accepted))
            if index is None:
                return response.raise_for_status()
            self.refused[accepted.pop(index).id] = str(response.json()["detail"])
        return None

    def _wait_until_done(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """The finished evaluation. Ctrl-C cancels it. Raises Conflict if it has no result."""
        try:
            while evaluation["finished_at"] is None:
                time.sleep(POLL_S)
                evaluation = self._get(f"/eval/{evaluation['id']}")
                self.progress(f"version {evaluation['version']}: {evaluation['progress']:.0%}")
        except KeyboardInterrupt:
            self.client.delete(f"/eval/{evaluation['id']}")
            raise
        if evaluation["status"] != "done":
            raise Conflict(evaluation["error"] or f"the evaluation was {evaluation['status']}")
        return evaluation

    def _wait_until_settled(self, edit_id: str) -> str:
        while True:
            edit = self._get(f"/edits/{edit_id}")
            if edit["status"] not in UNSETTLED:
                return str(edit["status"])
            time.sleep(POLL_S)

    def _get_items(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor: dict[str, Any] = {}
        while True:
            page = self._get(path, **params, **cursor, limit=200)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        """GET a JSON object; the request is repeated while the server is busy or away."""
        busy_until, away_until = time.monotonic() + BUSY_S, time.monotonic() + AWAY_S
        while True:
            try:
                response = self.client.get(path, params=params)
            except httpx.TransportError:
                if time.monotonic() > away_until:
                    raise
                time.sleep(POLL_S)
                continue
            if response.status_code != 503 or time.monotonic() > busy_until:
                body: dict[str, Any] = response.raise_for_status().json()
                return body
            time.sleep(float(response.headers.get("Retry-After", "1")))


def _merge(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not evaluations:
        raise Refused("the server can be asked none of the records", field="data")
    results = [{"evaluations": [evaluation["id"]], **evaluation["result"]} for evaluation in evaluations]
    return merge_results(results) | {"version": evaluations[0]["version"]}


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records in batches that one request may hold: at most 1,000 records and 4 MB."""
    batch: list[Record] = []
    size = 0
    for record in records:
        length = len(json.dumps(to_json(record)).encode())
        if batch and (len(batch) == MAX_RECORDS or size + length > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def _edit_body(record: Record) -> dict[str, Any]:
    """The edit of a record, without its probes: a benchmark must not teach the probes."""
    edit = to_edit_request(record)
    names = ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key")
    fields = {name: getattr(edit, name) for name in names if getattr(edit, name) is not None}
    return fields | ({"surfaces": list(edit.surfaces)} if edit.surfaces else {})


def _refused_index(response: httpx.Response, count: int) -> int | None:
    """The index of the record that a refusal names; None if the response is no refusal of one record."""
    if response.status_code != 422:
        return None
    field = next((fault["field"] for fault in response.json().get("errors", ())), "")
    digits = field.removeprefix("edits[").partition("]")[0]
    if field.startswith("edits[") and digits.isdigit() and int(digits) < count:
        return int(digits)
    return 0 if count == 1 and field.partition("[")[0].partition(".")[0] in RECORD_FIELDS else None
