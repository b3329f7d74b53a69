"""What `errata eval` asks a server for, over HTTP: records in bounded parts, edits one after another, one report in the end."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.domain.errors import Conflict, Refused
from service.evaluation.record import Record, edit_request_of, to_json

AT_ONCE = 1_000  # records of one evaluation: the server's limit
BYTES_AT_ONCE = 4_000_000  # of one request: half of the server's default limit
LOOK_S = 0.2
TRIES_S = 600.0  # how long a server that is busy is asked again
FIELDS = ("prompt", "target", "rephrases", "locality", "portability", "generation", "wanted", "opposite")  # of a record
Told = Callable[[str], None]


@dataclass
class Evaluator:
    """Asks one server. `refused` lists the records that it cannot be asked, each with the server's reason."""

    client: httpx.Client
    metrics: str = "standard"
    told: Told = lambda _: None
    refused: dict[str, str] = field(default_factory=dict)  # record → why

    def measure(self, version: int | str, asked: Sequence[Record] | str, *, capability: bool = False) -> dict[str, Any]:
        """The result on records, or on `live`, with the ids of the evaluations behind it. Several are merged by their n."""
        if isinstance(asked, str):
            return _merged([self._evaluated(version, asked, capability)])
        done: list[dict[str, Any] | None] = []
        for some in _parts([record for record in asked if record.id not in self.refused]):
            done.append(self._of_records(version, some, capability and not done))
        return _merged([one for one in done if one is not None])

    def apply(self, records: Sequence[Record]) -> Counter[str]:
        """Post records as edits and wait until all are settled; how many ended how."""
        ended: Counter[str] = Counter()
        for some in _parts([record for record in records if record.id not in self.refused]):
            posted = self._post(some, lambda kept: ("/edits/batch", {"edits": [_edit(record) for record in kept]}))
            if posted is None:
                continue
            ids = [edit["id"] for edit in posted.json()["items"]]
            ended.update(self._settled(edit_id) for edit_id in ids)
        return ended

    def head(self) -> int:
        """The number of the head."""
        return int(self.client.get("/versions/head").raise_for_status().json()["number"])

    def retrain(self, reason: str) -> dict[str, Any]:
        """Move everything into the weights. Raises Conflict if that does not end well."""
        job = self.client.post("/admin/retrain", json={"reason": reason}).raise_for_status().json()
        while job["finished_at"] is None:
            time.sleep(LOOK_S)
            job = self.client.get(f"/jobs/{job['id']}").raise_for_status().json()
            self.told(f"retrain: {job['progress']:.0%}")
        if job["status"] != "done":
            raise Conflict(f"the retrain did not end well: {job['error']}")
        return {"job": job["id"], "version": job["version"]}

    def _of_records(self, version: int | str, records: Sequence[Record], capability: bool) -> dict[str, Any] | None:
        def request(kept: Sequence[Record]) -> tuple[str, dict[str, Any]]:
            return "/eval", self._body(version, [to_json(record) for record in kept], capability)

        posted = self._post(records, request)
        return None if posted is None else self._followed(posted.json())

    def _evaluated(self, version: int | str, asked: str, capability: bool) -> dict[str, Any]:
        return self._followed(self._posted("/eval", self._body(version, asked, capability)).raise_for_status().json())

    def _body(self, version: int | str, asked: Any, capability: bool) -> dict[str, Any]:
        return {"version": version, "edits": asked, "metrics": self.metrics, "capability": capability}

    def _post(
        self, records: Sequence[Record], request: Callable[[Sequence[Record]], tuple[str, dict[str, Any]]]
    ) -> httpx.Response | None:
        """Post records, without those that the server refuses by name; None if none is left."""
        kept = list(records)
        while kept:
            response = self._posted(*request(kept))
            at = _refused_place(response, len(kept))
            if at is None:
                return response.raise_for_status()
            self.refused[kept.pop(at).id] = str(response.json()["detail"])
        return None

    def _posted(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Post, again and again while the server says that too much waits."""
        until = time.monotonic() + TRIES_S
        while True:
            response = self.client.post(path, json=body)
            if response.status_code != 503 or time.monotonic() > until:
                return response
            time.sleep(float(response.headers.get("Retry-After", "1")))

    def _followed(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """The evaluation once it is done; Ctrl-C cancels it."""
        try:
            while evaluation["finished_at"] is None:
                time.sleep(LOOK_S)
                evaluation = self.client.get(f"/eval/{evaluation['id']}").raise_for_status().json()
                self.told(f"version {evaluation['version']}: {evaluation['progress']:.0%}")
        except KeyboardInterrupt:
            self.client.delete(f"/eval/{evaluation['id']}")
            raise
        if evaluation["status"] != "done":
            raise Conflict(evaluation["error"] or f"the evaluation was {evaluation['status']}")
        return evaluation

    def _settled(self, edit_id: str) -> str:
        while True:
            edit = self.client.get(f"/edits/{edit_id}").raise_for_status().json()
            if edit["status"] not in ("queued", "applying"):
                return str(edit["status"])
            time.sleep(LOOK_S)


def edit_and_measure(
    evaluator: Evaluator, records: Sequence[Record], *, batch: int, capability: bool, retrain: bool
) -> dict[str, Any]:
    """The field's protocol: edit, ask right after each edit (or `batch` of them), and ask everything after the last one.

    With `retrain`, everything is then moved into the weights and asked once more.
    """
    ended: Counter[str] = Counter()
    after_edit = []
    for start in range(0, len(records), batch):
        some = records[start : start + batch]
        ended += evaluator.apply(some)
        asked = [record for record in some if record.id not in evaluator.refused]
        if asked:
            after_edit.append(evaluator.measure(evaluator.head(), asked))
        evaluator.told(f"edited {min(start + batch, len(records))} of {len(records)}")
    if not after_edit:
        raise Refused("the server took none of the records as an edit", field="data")
    report = {
        "edits": dict(ended),
        "after_edit": merged_results(after_edit),
        "after_all": evaluator.measure(evaluator.head(), records, capability=capability),
    }
    if retrain:
        try:
            report["retrain"] = evaluator.retrain("errata eval --retrain")
            report["after_retrain"] = evaluator.measure(evaluator.head(), records, capability=capability)
        except Conflict as error:  # what was measured until then is worth having
            report["retrain"] = {"error": error.message}
    return report


def merged_results(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results as one: scores are weighted by their n, counts are added, and what names something stays as the first has it."""
    first = results[0]
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for result in results for name in result):
        values = [result[name] for result in results if result.get(name) is not None]
        if not values:
            merged[name] = None
        elif name == "capability":
            merged[name] = values[-1]  # of one version and one set of tasks, whatever was asked beside it
        elif name == "evaluations":
            merged[name] = [one for value in values for one in value]
        elif isinstance(values[0], dict):
            merged[name] = merged_results(values)
        elif isinstance(values[0], float) or (name == "score" and "n" in first):
            merged[name] = _weighted(name, results)
        elif isinstance(values[0], int) and not isinstance(values[0], bool):
            merged[name] = sum(values)
        else:
            merged[name] = values[0]
    return merged


def _weighted(name: str, results: Sequence[dict[str, Any]]) -> float | None:
    pairs = [(result[name], result.get("n", 1)) for result in results if result.get(name) is not None]
    total = sum(n for _, n in pairs)
    return sum(value * n for value, n in pairs) / total if total else None


def _merged(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not done:
        raise Refused("the server can be asked none of the records", field="data")
    return merged_results([{"evaluations": [one["id"]], **one["result"]} for one in done]) | {"version": done[0]["version"]}


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
    edit = edit_request_of(record)
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
