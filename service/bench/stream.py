"""A stream of edits through a real server: one edit after another over HTTP, and at every mark the server measures its own head.

The client knows nothing but the HTTP interface. Edits are posted with their probes, none of them open to training; after so many
edits all of them are asked again of the version that is the head then, while retrains go on as the server sees fit.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from service.bench.asking import Asking, evaluate
from service.bench.contenders import DEFERRED_S, environment_of
from service.bench.kept import KEPT
from service.bench.results import percentile
from service.evaluation.record import EvalProbe, Record
from service.own_server import OwnServer
from service.settings import environment_without_settings

WAIT_S = 60.0  # the longest that a POST may wait
PATIENCE_S = 1_800.0  # until a retrain or an evaluation of hundreds of edits is over, on a busy machine
LOOK_S = 0.25
IDLE_S = 3 * DEFERRED_S  # without a retrain, after which none is expected any more
WAITING = ("queued", "applying", "deferred")
LIVE = ("applied", "consolidated")
Mark = dict[str, Any]


@contextmanager
def server_of(contender: str, model: str, *, every: int, tasks: Path | None = None) -> Iterator[httpx.Client]:
    """A server of its own over a new data folder, under the settings of a contender; capability is measured by the
    file `tasks`. Raises Unavailable if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="errata-bench-", ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        neutral = data / "neutral"
        KEPT.mkdir(exist_ok=True)
        shutil.copytree(KEPT, neutral)
        given = {"ERRATA_MODEL": model, "ERRATA_DATA_DIR": folder, "ERRATA_LOG_LEVEL": "warning", "OMP_NUM_THREADS": "1"}
        given |= {} if tasks is None else {"ERRATA_CAPABILITY_FILE": str(tasks.resolve())}
        server = OwnServer(environment_without_settings() | given | environment_of(contender, every=every), data / "server.log")
        try:
            server.start()
            with httpx.Client(base_url=server.url, timeout=2 * WAIT_S, trust_env=False) as client:
                yield client
        finally:
            server.stop()
            shutil.copytree(neutral, KEPT, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.part"))


@dataclass
class Stream:
    """One contender and the records it is given, in their order."""

    asking: Asking
    records: Sequence[Record]
    every: int
    capability: bool = True  # whether the server has tasks to measure it by
    ids: list[str] = field(default_factory=list)
    at_once: dict[str, float] = field(default_factory=dict)  # edit → seconds until it was applied, where the POST said so
    began: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Mark]:
        """Post every edit; a mark after every `every` of them and after the last one."""
        for seq, record in enumerate(self.records, 1):
            self._post(record)
            if seq % self.every == 0 or seq == len(self.records):
                yield self._mark(seq)

    def _post(self, record: Record) -> None:
        began = time.monotonic()
        edit = self.asking.send("POST", "/edits", params={"wait": WAIT_S}, json=body_of(record))
        seconds = time.monotonic() - began
        if edit is None:
            return
        self.ids.append(edit["id"])
        if edit["status"] in LIVE:
            self.at_once[edit["id"]] = seconds
        self.asking.send("POST", "/generate", json={"prompt": record.prompt, "max_new_tokens": 16})

    def _mark(self, seq: int) -> Mark:
        began = time.monotonic()
        self._until_carried()
        waited = time.monotonic() - began
        head = self.asking.send("GET", "/versions/head") or {}
        after_all = evaluate(
            self.asking, self.records[:seq], head.get("number", 0), capability=self.capability, patience_s=PATIENCE_S
        )
        edits = list(self.asking.pages("/edits"))
        seconds = self._latencies(edits)
        return {
            "edits": seq,
            "version": head.get("number"),
            "window": head.get("window"),
            "live": sum(edit["status"] in LIVE for edit in edits),
            "retrains": self._retrains(),
            "after_all": after_all,
            "right_after": right_after(edits),
            "latency_s": spread(seconds),
            "latency_since_last_mark_s": spread(seconds[-(seq % self.every or self.every) :]),
            "waited_for_deferred_s": waited,
            "seconds": time.monotonic() - self.began,
            "requests": self.asking.requests,
            "failed_requests": len(self.asking.failures),
            "failures": sorted(set(self.asking.failures))[:10],
        }

    def _until_carried(self) -> None:
        """Until no edit waits for its turn or for a retrain: what is measured holds all that was posted, or says why not.

        Deferred edits that no retrain comes for are not waited for: some contenders make none, and one that failed stays failed.
        """
        until, patience = time.monotonic() + PATIENCE_S, time.monotonic() + IDLE_S
        while time.monotonic() < min(until, patience) and self._some(WAITING):
            if self._some(WAITING[:2]) or self._retrain_is_underway():
                patience = time.monotonic() + IDLE_S
            time.sleep(LOOK_S)

    def _some(self, statuses: Sequence[str]) -> bool:
        """Whether any edit stands so."""
        pages = [self.asking.send("GET", "/edits", params={"status": status, "limit": 1}) for status in statuses]
        return any(page is not None and page["items"] for page in pages)

    def _retrain_is_underway(self) -> bool:
        last = self.asking.send("GET", "/jobs", params={"kind": "retrain", "limit": 1})
        return bool(last and last["items"] and last["items"][0]["status"] in ("queued", "running"))

    def _retrains(self) -> dict[str, int]:
        """Retrains that were published, by mode, and those that were not."""
        counts = {"minor": 0, "major": 0, "failed": 0}
        for job in self.asking.pages("/jobs", kind="retrain"):
            if job["status"] == "done" and job["version"] is not None:
                counts[job.get("mode") or "major"] += 1
            elif job["status"] == "failed":
                counts["failed"] += 1
        return counts

    def _latencies(self, edits: Sequence[Mapping[str, Any]]) -> list[float]:
        """Seconds from sending an edit to its being live, in order of posting. For edits that a retrain made live the server's
        own clock is read: nobody waited for them.
        """
        found = {edit["id"]: edit for edit in edits}
        seconds: list[float] = []
        for edit_id in self.ids:
            edit = found.get(edit_id, {})
            if edit_id in self.at_once:
                seconds.append(self.at_once[edit_id])
            elif edit.get("applied_at"):
                took = datetime.fromisoformat(edit["applied_at"]) - datetime.fromisoformat(edit["created_at"])
                seconds.append(took.total_seconds())
        return seconds


def body_of(record: Record) -> dict[str, Any]:
    """A record as the body of POST /edits; of its probes only rephrases that say so are open to training."""
    fields = {"subject": record.subject, "relation": record.relation, "ground_truth": record.ground_truth}
    return {
        "prompt": record.prompt,
        "target": record.target,
        **{name: value for name, value in fields.items() if value is not None},
        "rephrases": [_probe(probe, train=probe.train) for probe in record.rephrases],
        "locality": [_probe(probe) for probe in record.locality],
        "portability": [_probe(probe) for probe in record.portability],
    }


def right_after(edits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the edits' own reports say: their probes asked as soon as the server had time for it, each edit alone."""
    found: dict[str, list[tuple[float, int]]] = {"reliability": [], "generality": [], "locality": []}
    for edit in edits:
        greedy = ((edit.get("report") or {}).get("scores") or {}).get("greedy", {})
        for kind, seen in found.items():
            figure = greedy.get(kind)
            if figure and figure["n"]:
                seen.append((figure["score"], figure["n"]))
    return {kind: _mean(seen) for kind, seen in found.items()}


def spread(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Median and 95th percentile with their n."""
    if not seconds:
        return {"p50": None, "p95": None, "n": 0}
    return {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95), "n": len(seconds)}


def _mean(seen: Sequence[tuple[float, int]]) -> dict[str, float | int | None]:
    n = sum(count for _, count in seen)
    return {"score": sum(score * count for score, count in seen) / n if n else None, "n": n}


def _probe(probe: EvalProbe, *, train: bool = False) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": probe.prompt, "train": train}
    return asked if probe.answer is None else {**asked, "answer": probe.answer}
