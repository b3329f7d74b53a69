"""The calls of `errata eval` to a server, over HTTP: evaluations of records in bounded requests, edits, their statuses, retrains.

Reads and posts are repeated while the server is busy or away for a moment, because a run takes hours; a repeated post has the
same idempotency key.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeVar, cast

from service.client.calls import VersionName
from service.client.errata_client import ErrataClient
from service.client.errors import ServerProblem
from service.client.interruption import cancel_on_interrupt
from service.client.retries import NO_RETRIES
from service.client.shapes import EditInput, EvaluationData
from service.client.startup import Progress, ignore_progress
from service.client.waiting import WAITING, wait_until_live
from service.domain.errors import Conflict, Refused
from service.evaluation.merging import merge_results
from service.evaluation.records import Record, to_edit_request, to_json

R = TypeVar("R")
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

    client: ErrataClient
    metrics: Literal["standard", "full"] = "standard"
    progress: Progress = ignore_progress
    refused: dict[str, str] = field(default_factory=dict)  # record id → reason
    edit_ids: dict[str, str] = field(default_factory=dict)  # record id → edit id

    def measure(
        self, version: VersionName, selection: Sequence[Record] | Literal["live", "none"], *, capability: bool = False
    ) -> dict[str, Any]:
        """The result on records, or on the `live` edits, with the ids of its evaluations; merged by their n."""
        if isinstance(selection, str):
            return _merge([self._evaluate_edits(version, selection, capability)])
        evaluations: list[EvaluationData | None] = []
        for batch in _batches([record for record in selection if record.id not in self.refused]):
            evaluations.append(self._evaluate_records(version, batch, capability and not evaluations))
        return _merge([evaluation for evaluation in evaluations if evaluation is not None])

    def apply(self, records: Sequence[Record]) -> dict[str, str]:
        """Post records as edits and wait until all are settled: {record id: status}, without the records that are refused."""
        statuses: dict[str, str] = {}
        for batch in _batches([record for record in records if record.id not in self.refused]):
            page = self._post(batch, lambda records: self.client.post_edits([_edit_body(record) for record in records]))
            accepted = [record.id for record in batch if record.id not in self.refused]
            edit_ids = () if page is None else (edit["id"] for edit in page["items"])
            self.edit_ids |= zip(accepted, edit_ids, strict=True)
            statuses |= {record_id: self.client.wait_for_edit(self.edit_ids[record_id])["status"] for record_id in accepted}
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
        return Counter(self.client.get_edit(edit_id)["status"] for edit_id in self.edit_ids.values())

    def read_head(self) -> int:
        """The number of the head."""
        return self.client.get_version("head")["number"]

    def retrain(self, reason: str, mode: Literal["minor", "major"] | None = None) -> dict[str, Any]:
        """Run a retrain and wait for its end; without a mode the server chooses minor or major. Raises Conflict if it fails."""
        requested = self.client.retrain(reason, mode=mode)
        job = self.client.wait_for_job(requested, on_progress=lambda job: self.progress(f"retrain: {job['progress']:.0%}"))
        if job["status"] != "done":
            raise Conflict(f"the retrain did not end well: {job['error'] or job['status']}")
        return {"job": job["id"], "version": job["version"]}

    def _wait_until_live(self) -> Counter[str]:
        return wait_until_live(self._count_waiting, self._retrain_is_underway, patience_s=inf, idle_s=IDLE_S)

    def _count_waiting(self) -> Counter[str]:
        own = set(self.edit_ids.values())
        return Counter(status for status in WAITING for edit in self.client.list_edits(status=status) if edit["id"] in own)

    def _retrain_is_underway(self) -> bool:
        last = next(self.client.list_jobs(kind=["retrain"], limit=1), None)
        return last is not None and last["status"] in ("queued", "running")

    def _evaluate_records(self, version: VersionName, records: Sequence[Record], capability: bool) -> EvaluationData | None:
        evaluation = self._post(records, lambda records: self._request(version, list(map(to_json, records)), capability))
        return None if evaluation is None else self._follow(evaluation)

    def _evaluate_edits(self, version: VersionName, selection: Literal["live", "none"], capability: bool) -> EvaluationData:
        return self._follow(self._request(version, selection, capability))

    def _request(
        self, version: VersionName, edits: Literal["live", "none"] | list[dict[str, Any]], capability: bool
    ) -> EvaluationData:
        return self.client.evaluate(edits, version=version, metrics=self.metrics, capability=capability)

    def _post(self, records: Sequence[Record], call: Callable[[Sequence[Record]], R]) -> R | None:
        """Call with records, without those that the server refuses one by one; None if none is left."""
        accepted = list(records)
        while accepted:
            try:
                return call(accepted)
            except ServerProblem as problem:
                index = _refused_index(problem, len(accepted))
                if index is None:
                    raise
                self.refused[accepted.pop(index).id] = problem.detail
        return None

    def _follow(self, evaluation: EvaluationData) -> EvaluationData:
        """The finished evaluation. Ctrl-C cancels it. Raises Conflict if it has no result."""

        def show(state: EvaluationData) -> None:
            self.progress(f"version {state['version']}: {state['progress']:.0%}")

        once = self.client.with_options(retries=NO_RETRIES)
        with cancel_on_interrupt(lambda: once.cancel_evaluation(evaluation["id"])):
            return self.client.follow_evaluation(evaluation, on_progress=show)


def _merge(evaluations: Sequence[EvaluationData]) -> dict[str, Any]:
    if not evaluations:
        raise Refused("the server can be asked none of the records", field="data")
    results = [{"evaluations": [evaluation["id"]], **(evaluation["result"] or {})} for evaluation in evaluations]
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


def _edit_body(record: Record) -> EditInput:
    """The edit of a record, without its probes: a benchmark must not teach the probes."""
    edit = to_edit_request(record)
    names = ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key")
    fields = {name: getattr(edit, name) for name in names if getattr(edit, name) is not None}
    return cast(EditInput, fields | ({"surfaces": list(edit.surfaces)} if edit.surfaces else {}))


def _refused_index(problem: ServerProblem, count: int) -> int | None:
    """The index of the record that a refusal names; None if the problem is no refusal of one record."""
    if problem.status != 422:
        return None
    field = problem.field or ""
    digits = field.removeprefix("edits[").partition("]")[0]
    if field.startswith("edits[") and digits.isdigit() and int(digits) < count:
        return int(digits)
    return 0 if count == 1 and field.partition("[")[0].partition(".")[0] in RECORD_FIELDS else None
