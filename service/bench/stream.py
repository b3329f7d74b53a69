"""A stream of edits through a real server, over HTTP alone: one edit after another, and an evaluation of the head at every mark.

Edits are posted with their probes, none of them open to training. At a mark all edits so far are evaluated on the head of that
moment; meanwhile the server retrains when retrains are due. Each edit is also evaluated on the version that first contained it.
Versions never change, so this is done at the mark, where it delays no edit.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

from service.bench.contenders import DEFERRED_S
from service.bench.counting_client import CountingClient, evaluate
from service.bench.new_server import WAIT_S, wait_until_nothing_waits
from service.bench.results import percentile
from service.client.errata_client import ErrataClient
from service.client.shapes import EditInput, ProbeInput
from service.client.waiting import is_counted_live
from service.evaluation.merging import merge_results
from service.evaluation.records import EvalProbe, Record

PATIENCE_S = 1_800.0  # until a retrain or an evaluation of hundreds of edits is over, on a busy machine
IDLE_S = 3 * DEFERRED_S  # after so long without a retrain, none is expected
R = TypeVar("R")
Mark = dict[str, Any]


@dataclass(frozen=True)
class PostedEdit:
    """An accepted edit. `live_after_s` is None unless the POST returned a live edit; `late_s` is the delay of the POST."""

    id: str
    record: Record
    live_after_s: float | None
    late_s: float


@dataclass
class Stream:
    """One contender and its records, in their order.

    With `pace_s` each post between two marks has a scheduled moment. A late post does not shift the next one, and its latency
    counts from its moment. Without `pace_s` each post follows the one before.
    """

    client: CountingClient
    records: Sequence[Record]
    every: int
    pace_s: float = 0.0
    capability: bool = True  # whether the server has capability tasks
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    posted: list[PostedEdit] = field(default_factory=list)
    late_count: int = 0
    first_answers: list[dict[str, Any]] = field(default_factory=list)  # results on the versions that first held the edits
    evaluated_ids: set[str] = field(default_factory=set)  # edits in them
    started_at: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Mark]:
        """Post every edit. Yields a mark after every `every` edits and after the last one."""
        for start in range(0, len(self.records), self.every):
            batch = self.records[start : start + self.every]
            first = len(self.posted)
            self._post_all(batch)
            yield self._mark(start + len(batch), self.posted[first:])

    def _post_all(self, records: Sequence[Record]) -> None:
        started_at = self.clock()
        for number, record in enumerate(records):
            wait_s = started_at + number * self.pace_s - self.clock()
            if wait_s > 0:
                self.sleep(wait_s)
            late_s = max(0.0, -wait_s) if self.pace_s else 0.0
            self.late_count += late_s > 0 and number > 0
            self._post(record, late_s)

    def _post(self, record: Record, late_s: float) -> None:
        started_at = self.clock()
        edit = self.client.attempt(lambda errata: errata.post_edit(build_body(record), wait_s=WAIT_S))
        seconds = self.clock() - started_at
        if edit is None:
            return
        self.posted.append(PostedEdit(edit["id"], record, seconds if is_counted_live(edit) else None, late_s))
        self.client.attempt(lambda errata: errata.generate(record.prompt, max_new_tokens=16))

    def _mark(self, seq: int, since_last: Sequence[PostedEdit]) -> Mark:
        started_at = time.monotonic()
        wait_until_nothing_waits(self._first, patience_s=PATIENCE_S, idle_s=IDLE_S)
        waited_s = time.monotonic() - started_at
        head = self.client.attempt(lambda errata: errata.get_version("head"))
        after_all = None if head is None else self._evaluate(self.records[:seq], head["number"], capability=self.capability)
        edits = {edit["id"]: edit for edit in self.client.list_items(lambda errata: errata.list_edits())}
        self._evaluate_first_answers(edits)
        return {
            "edits": seq,
            "version": head and head["number"],
            "window": head and head["window"],
            "live": sum(is_counted_live(edit) for edit in edits.values()),
            "accepted_anyway": sum(edit.get("accepted_anyway", False) for edit in edits.values()),
            "retrains": self._count_retrains(),
            "after_all": after_all,
            "right_after": score_first_answers(self.first_answers),
            "latency_s": summarise_seconds(compute_latencies(self.posted, edits)),
            "latency_since_last_mark_s": summarise_seconds(compute_latencies(since_last, edits)),
            "late": self.late_count,
            "waited_for_deferred_s": waited_s,
            "seconds": time.monotonic() - self.started_at,
            "requests": self.client.requests,
            "failed_requests": len(self.client.failures),
            "failures": sorted(set(self.client.failures))[:10],
        }

    def _evaluate(self, records: Sequence[Record], version: int, *, capability: bool = False) -> dict[str, Any] | None:
        return evaluate(self.client, records, version, capability=capability, patience_s=PATIENCE_S)

    def _evaluate_first_answers(self, edits: Mapping[str, Mapping[str, Any]]) -> None:
        """Evaluate every edit that has become live on the version that first contained it. Edits of one version go together."""
        by_version: dict[int, list[Record]] = {}
        for posted_edit in self.posted:
            version = edits.get(posted_edit.id, {}).get("version")
            if version is not None and posted_edit.id not in self.evaluated_ids:
                self.evaluated_ids.add(posted_edit.id)
                by_version.setdefault(version, []).append(posted_edit.record)
        results = (self._evaluate(records, version) for version, records in by_version.items())
        self.first_answers += [result for result in results if result is not None]

    def _first(self, listing: Callable[[ErrataClient], Iterator[R]]) -> R | None:
        return next(self.client.list_items(listing), None)

    def _count_retrains(self) -> dict[str, int]:
        """The number of published retrains by mode, and of failed ones."""
        counts = {"minor": 0, "major": 0, "failed": 0}
        for job in self.client.list_items(lambda errata: errata.list_jobs(kind=["retrain"])):
            if job["status"] == "done" and job["version"] is not None:
                counts[job["mode"] or "major"] += 1
            elif job["status"] == "failed":
                counts["failed"] += 1
        return counts


def compute_latencies(posted: Sequence[PostedEdit], edits: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Seconds until each live edit was live. For edits that a retrain made live, the times are the server's: no call waited."""
    seconds: list[float] = []
    for posted_edit in posted:
        edit = edits.get(posted_edit.id, {})
        if posted_edit.live_after_s is not None:
            seconds.append(posted_edit.late_s + posted_edit.live_after_s)
        elif edit.get("applied_at"):
            duration = datetime.fromisoformat(edit["applied_at"]) - datetime.fromisoformat(edit["created_at"])
            seconds.append(posted_edit.late_s + duration.total_seconds())
    return seconds


def build_body(record: Record) -> EditInput:
    """A record as the body of POST /edits. Of its probes only rephrases with `train` are open to training."""
    fields = {"subject": record.subject, "relation": record.relation, "ground_truth": record.ground_truth}
    return {
        "prompt": record.prompt,
        "target": record.target,
        **cast(EditInput, {name: value for name, value in fields.items() if value is not None}),
        "rephrases": [_build_probe(probe, train=probe.train) for probe in record.rephrases],
        "locality": [_build_probe(probe) for probe in record.locality],
        "portability": [_build_probe(probe) for probe in record.portability],
    }


def score_first_answers(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores, with their n, of edits on the versions that first contained them."""
    greedy = merge_results(results)["greedy"] if results else {}
    figures = {kind: greedy.get(kind, {}) for kind in ("reliability", "generality", "locality")}
    figures["generality"] = figures["generality"].get("untrained", {})
    return {kind: {"score": figure.get("score"), "n": figure.get("n", 0)} for kind, figure in figures.items()}


def summarise_seconds(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Median and 95th percentile with their n."""
    if not seconds:
        return {"p50": None, "p95": None, "n": 0}
    return {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95), "n": len(seconds)}


def _build_probe(probe: EvalProbe, *, train: bool = False) -> ProbeInput:
    body = ProbeInput(prompt=probe.prompt, train=train)
    return body if probe.answer is None else {**body, "answer": probe.answer}
