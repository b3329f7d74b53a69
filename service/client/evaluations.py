"""What `errata eval` asks a server for, over HTTP: records in bounded parts, edits and their standing, results and retrains.

What is read is read again, and what is posted is posted again under one key, where the server is busy or does not answer for a
moment: a run of hours must not end by that.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from service.client.retries import AWAY_S, LOOK_S, TRIES_S, post
from service.client.waiting import UNSETTLED, WAITING, wait_until_live
from service.domain.errors import Conflict, Refused
from service.evaluation.merging import merge_results
from service.evaluation.records import Record, to_edit_request, to_json

AT_ONCE = 1_000  # records of one evaluation: the server's limit
BYTES_AT_ONCE = 4_000_000  # of one request: half of the server's default limit
IDLE_S = 2.0  # after which no retrain is expected any more that nobody asked for
FIELDS = (
    "prompt",
    "target",
    "ground_truth",
    "rephrases",
    "locality",
    "portability",
    "generation",
    "wanted",
    "opposite",
)  # of a record
Told = Callable[[str], None]


@dataclass
class EvaluationClient:
    """Asks one server. `refused` lists the records that it cannot be asked, each with the server's reason."""

    client: httpx.Client
    metrics: str = "standard"
    told: Told = lambda _: None
    refused: dict[str, str] = field(default_factory=dict)  # record → why
    posted: dict[str, str] = field(default_factory=dict)  # record → edit

    def measure(self, version: int | str, asked: Sequence[Record] | str, *, capability: bool = False) -> dict[str, Any]:
        """The result on records, or on `live`, with the ids of the evaluations behind it. Several are merged by their n."""
        if isinstance(asked, str):
            return _merged([self._evaluated(version, asked, capability)])
        done: list[dict[str, Any] | None] = []
        for some in _parts([record for record in asked if record.id not in self.refused]):
            done.append(self._of_records(version, some, capability and not done))
        return _merged([one for one in done if one is not None])

    def apply(self, records: Sequence[Record]) -> dict[str, str]:
        """Post records as edits and wait until all are settled: how each of them ended, less those that the server refuses."""
        ended: dict[str, str] = {}
        for some in _parts([record for record in records if record.id not in self.refused]):
            posted = self._post(some, lambda kept: ("/edits/batch", {"edits": [_edit(record) for record in kept]}))
            taken = [record.id for record in some if record.id not in self.refused]
            edits = () if posted is None else (edit["id"] for edit in posted.json()["items"])
            self.posted |= zip(taken, edits, strict=True)
            ended |= {name: self._settled(self.posted[name]) for name in taken}
        return ended

    def wait_until_live(self) -> Counter[str]:
        """Wait until no posted edit waits for its turn or for a retrain; those that still do, by status. Where none comes for
        deferred edits, one is asked for. Raises Conflict if that does not end well.
        """
        if not self._wait_until_live()["deferred"]:
            return Counter()
        self.retrain("errata eval: edits are deferred")
        return self._wait_until_live()

    def standing(self) -> Counter[str]:
        """How many posted edits have each status."""
        return Counter(str(self._get(f"/edits/{edit_id}")["status"]) for edit_id in self.posted.values())

    def head(self) -> int:
        """The number of the head."""
        return int(self._get("/versions/head")["number"])

    def retrain(self, reason: str, mode: str | None = None) -> dict[str, Any]:
        """Move everything into the weights, with mode `major` from the base model, without one as the server sees fit. Raises
        Conflict if that does not end well.
        """
        job = post(self.client, "/admin/retrain", {"reason": reason, "mode": mode}).raise_for_status().json()
        while job["finished_at"] is None:
            time.sleep(LOOK_S)
            job = self._get(f"/jobs/{job['id']}")
            self.told(f"retrain: {job['progress']:.0%}")
        if job["status"] != "done":
            raise Conflict(f"the retrain did not end well: {job['error'] or job['status']}")
        return {"job": job["id"], "version": job["version"]}

    def _wait_until_live(self) -> Counter[str]:
        return wait_until_live(self._waiting, self._retrain_is_underway, patience_s=inf, idle_s=IDLE_S)

    def _waiting(self) -> Counter[str]:
        own = set(self.posted.values())
        return Counter(status for status in WAITING for edit in self._pages("/edits", status=status) if edit["id"] in own)

    def _retrain_is_underway(self) -> bool:
        last = self._get("/jobs", kind="retrain", limit=1)["items"]
        return bool(last) and last[0]["status"] in ("queued", "running")

    def _of_records(self, version: int | str, records: Sequence[Record], capability: bool) -> dict[str, Any] | None:
        def request(kept: Sequence[Record]) -> tuple[str, dict[str, Any]]:
            return "/eval", self._body(version, [to_json(record) for record in kept], capability)

        posted = self._post(records, request)
        return None if posted is None else self._followed(posted.json())

    def _evaluated(self, version: int | str, asked: str, capability: bool) -> dict[str, Any]:
        return self._followed(post(self.client, "/eval", self._body(version, asked, capability)).raise_for_status().json())

    def _body(self, version: int | str, asked: Any, capability: bool) -> dict[str, Any]:
        return {"version": version, "edits": asked, "metrics": self.metrics, "capability": capability}

    def _post(
        self, records: Sequence[Record], request: Callable[[Sequence[Record]], tuple[str, dict[str, Any]]]
    ) -> httpx.Response | None:
        """Post records, without those that the server refuses by name; None if none is left."""
        kept = list(records)
        while kept:
            response = post(self.client, *request(kept))
            at = _refused_place(response, len(kept))
            if at is None:
                return response.raise_for_status()
            self.refused[kept.pop(at).id] = str(response.json()["detail"])
        return None

    def _followed(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """The evaluation once it is done; Ctrl-C cancels it."""
        try:
            while evaluation["finished_at"] is None:
                time.sleep(LOOK_S)
                evaluation = self._get(f"/eval/{evaluation['id']}")
                self.told(f"version {evaluation['version']}: {evaluation['progress']:.0%}")
        except KeyboardInterrupt:
            self.client.delete(f"/eval/{evaluation['id']}")
            raise
        if evaluation["status"] != "done":
            raise Conflict(evaluation["error"] or f"the evaluation was {evaluation['status']}")
        return evaluation

    def _settled(self, edit_id: str) -> str:
        while True:
            edit = self._get(f"/edits/{edit_id}")
            if edit["status"] not in UNSETTLED:
                return str(edit["status"])
            time.sleep(LOOK_S)

    def _pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list."""
        cursor: dict[str, Any] = {}
        while True:
            page = self._get(path, **params, **cursor, limit=200)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        """Read, again and again while the server is busy or away."""
        busy, away = time.monotonic() + TRIES_S, time.monotonic() + AWAY_S
        while True:
            try:
                response = self.client.get(path, params=params)
            except httpx.TransportError:
                if time.monotonic() > away:
                    raise
                time.sleep(LOOK_S)
                continue
            if response.status_code != 503 or time.monotonic() > busy:
                found: dict[str, Any] = response.raise_for_status().json()
                return found
            time.sleep(float(response.headers.get("Retry-After", "1")))


def _merged(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not done:
        raise Refused("the server can be asked none of the records", field="data")
    return merge_results([{"evaluations": [one["id"]], **one["result"]} for one in done]) | {"version": done[0]["version"]}


def _parts(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records in requests that the server takes."""
    waiting = iter(records)
    part: list[Record] = []
    size = 0
    for record in waiting:
        length = len(json.dumps(to_json(record)).encode())
        if part and (len(part) == AT_ONCE or size + length > BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield part


def _edit(record: Record) -> dict[str, Any]:
    """The edit of a record, without its probes: a benchmark must not teach what it asks."""
    edit = to_edit_request(record)
    named = ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key")
    fields = {name: getattr(edit, name) for name in named if getattr(edit, name) is not None}
    return fields | ({"surfaces": list(edit.surfaces)} if edit.surfaces else {})


def _refused_place(response: httpx.Response, count: int) -> int | None:
    """Which record a refusal is about, if it is about one."""
    if response.status_code != 422:
        return None
    field = next((fault["field"] for fault in response.json().get("errors", ())), "")
    digits = field.removeprefix("edits[").partition("]")[0]
    if field.startswith("edits[") and digits.isdigit() and int(digits) < count:
        return int(digits)
    return 0 if count == 1 and field.partition("[")[0].partition(".")[0] in FIELDS else None
