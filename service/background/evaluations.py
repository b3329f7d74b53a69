"""Evaluations: requested over the API, pinned to a version, done by the worker in short steps, kept for good.

A step gives way to answers and to fits of edits, so live traffic decides how long an evaluation takes. After a stop of the
process an evaluation begins again, with the same result: greedy answers of one version do not change.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import structlog
from sqlalchemy.engine import Connection

from service.background.cooperative_task import CooperativeTask
from service.domain.edit import EditRequest
from service.domain.errors import Conflict, Corrupt, Gone, NotFound, Refused, ServiceError, TooLong, Unavailable
from service.domain.even_choice import choose_evenly
from service.domain.version import Head, VersionStatus
from service.evaluation.contradictions import drop_contradicted
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import Record, build_record, from_json, to_json
from service.evaluation.report import KINDS, build_report
from service.lifecycle.context import LifecycleContext
from service.lifecycle.keyed_requests import answer_once
from service.lm.overlay import Overlay
from service.store import edits, evaluations, list_rows, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.evaluations import Evaluation
from service.store.idempotency import KeyedRequest, unkeyed_request
from service.store.list_rows import ListedEval

MAX_EDITS = 1_000
MAX_WAITING = 100
EDITS_AT_ONCE = 4  # in one call of the evaluator
STEP_S = 0.25  # the length of a step, after which other chores run

log = structlog.get_logger("errata.evaluate")

Metrics = Literal["standard", "full"]
METRICS: tuple[Metrics, ...] = ("standard", "full")
Selection = Literal["live", "none"] | Sequence[str] | Sequence[Record] | Sequence[EditRequest]
YieldToAnswers = Callable[[], None]


class OverlayEvaluator(Protocol):
    """The measurements of an overlay. They call `yield_to_answers` between small steps; it may return only after a long time."""

    def ask(self, overlay: Overlay, records: Sequence[Record], *, yield_to_answers: YieldToAnswers) -> list[Outcome]:
        """The outcome of every question of every record."""
        ...

    def measure_full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], yield_to_answers: YieldToAnswers
    ) -> Mapping[str, Any]:
        """All metrics of the field; `live` are the live edits of the version."""
        ...

    def measure_capability(self, overlay: Overlay, *, yield_to_answers: YieldToAnswers) -> Mapping[str, Any]:
        """The capability of the version, as a share of the base model's."""
        ...

    def check_capability(self) -> None:
        """Raise Refused if there are no capability tasks."""
        ...


def request_eval(
    store: Store,
    *,
    version: int | None,
    selection: Selection,
    metrics: Metrics = "standard",
    capability: bool = False,
    author: str,
    keyed: KeyedRequest | None = None,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> Evaluation:
    """Queue an evaluation of a version (None: the current head). `selection` is `live`, edits by id, or inline records; it is
    `none` for an evaluation of capability alone.

    Of more than 1,000 live edits, 1,000 are asked, evenly over all; edits that were accepted anyway are left out, and counted. A
    version is not collected while an evaluation of it is due. A `keyed` request that was answered before gets the same evaluation
    in its current state.

    Raises NotFound for an unknown version or edit, Gone or Corrupt for a version that cannot answer, TooLong for more than 1,000
    selected edits, Refused for an empty selection or unknown metrics, Unavailable while too many evaluations wait.
    """
    if metrics not in METRICS:
        raise Refused("metrics must be standard or full", field="metrics")
    if not isinstance(selection, str) and not selection:
        raise Refused("edits must name at least one edit", field="edits")
    if selection == "none" and not capability:
        raise Refused("edits may be none only where capability is asked for", field="edits")

    def queue(connection: Connection, head: Head, now: datetime) -> Evaluation:
        if evaluations.count_unfinished(connection) >= MAX_WAITING:
            raise Unavailable("too many evaluations wait; ask for this one again later", retry_after_s=10.0)
        number = head.version if version is None else version
        version_row = versions.get(connection, number)
        _check_can_answer(version_row.status)
        version_row.check_base(head.base_fingerprint)
        request, about = _resolve(connection, number, selection)
        return evaluations.insert(
            connection,
            version=number,
            request=request,
            about={**about, "metrics": metrics, "capability": capability},
            author=author,
            now=now,
        )

    queued = answer_once(store, keyed or unkeyed_request(author), "eval", read=evaluations.get, queue=queue, now=now)
    if ring is not None:
        ring(queued.id)
    return queued


def get_eval(store: Store, eval_id: str) -> Evaluation:
    """One evaluation in its current state. Raises NotFound."""
    with store.read() as connection:
        return evaluations.get(connection, eval_id)


def list_evals(
    store: Store, *, limit: int, version: int | None = None, status: str | None = None, before: str | None = None
) -> list[ListedEval]:
    """Evaluations without their results, newest first; with `before` only those older than it. Raises NotFound for
    an unknown `before`.
    """
    with store.read() as connection:
        return list_rows.read_evals_page(connection, limit=limit, version=version, status=status, before=before)


def cancel_eval(store: Store, eval_id: str, *, now: datetime | None = None) -> Evaluation:
    """Cancel an evaluation that is not over; it stays in the list. Raises NotFound, Conflict if it is done or has failed."""
    with store.write() as connection:
        status = evaluations.get(connection, eval_id).status
        if status in ("done", "failed"):
            raise Conflict("the evaluation is over; it is kept and cannot be cancelled", field="id")
        evaluations.cancel(connection, eval_id, now=now or read_now(connection))
        return evaluations.get(connection, eval_id)


@dataclass(frozen=True)
class _Measured:
    """The result of an evaluation, and a short form of each outcome."""

    result: dict[str, Any]
    outcomes: list[list[Any]]


class Evaluations:
    """The worker's side: each `step` does a part of the oldest evaluation that is due."""

    def __init__(self, context: LifecycleContext, evaluator: OverlayEvaluator, *, step_s: float = STEP_S) -> None:
        self._context, self._evaluator, self._step_s = context, evaluator, step_s
        self._running: tuple[str, CooperativeTask[_Measured]] | None = None
        self._share = self._written = 0.0

    def step(self) -> bool:
        """Do one step; whether there was anything to do. An error ends its evaluation as failed, with the reason."""
        with self._context.store.read() as connection:
            due = evaluations.find_next(connection)
        if due is None or (self._running is not None and self._running[0] != due.id):
            self.close()  # the evaluation was cancelled, or another process has finished it
        if due is None:
            return False
        try:
            task = self._task(due)
            is_done = task.run_step()
        except Unavailable:
            self.close()
            raise
        except ServiceError as error:
            self._fail(due, error.message)
            return True
        except Exception as error:  # so that it does not block the evaluations that wait behind it
            log.error("evaluation failed", error=type(error).__name__)
            self._fail(due, f"the evaluation ended with {type(error).__name__}")
            return True
        if is_done:
            self._finish(due, task.result)
        else:
            self._write_progress(due)
        return True

    def close(self) -> None:
        """Cancel the running task. The row of its evaluation is unchanged, so that the next process begins it again."""
        running, self._running = self._running, None
        if running is not None:
            running[1].cancel()

    def _task(self, due: Evaluation) -> CooperativeTask[_Measured]:
        if self._running is None:
            with self._context.store.write() as connection:
                evaluations.begin(connection, due.id, now=self._context.clock())
            self._share = self._written = 0.0
            self._running = (due.id, CooperativeTask(lambda pause: self._measure(due, pause), step_s=self._step_s))
        return self._running[1]

    def _measure(self, due: Evaluation, pause: YieldToAnswers) -> _Measured:
        """Do a whole evaluation; `pause` is called between its small steps, where other work may run."""

        def yield_and_pause() -> None:
            self._context.yield_to_edits()
            pause()

        parts = _parts_of(due.about)
        records, overlay, live = self._records(due), self._overlay(due), self._live(due.version)
        outcomes: list[Outcome] = []
        for start in range(0, len(records), EDITS_AT_ONCE):
            outcomes += self._evaluator.ask(overlay, records[start : start + EDITS_AT_ONCE], yield_to_answers=yield_and_pause)
            self._share = min(1.0, (start + EDITS_AT_ONCE) / len(records)) / len(parts)
            yield_and_pause()
        consistent = drop_contradicted(outcomes, records, live)
        result = build_report(consistent, left_out={"contradicted": len(outcomes) - len(consistent)})
        if forced := due.about.get("accepted_anyway", 0):
            result["accepted_anyway"] = forced
        if "full" in parts:
            result["full"] = dict(self._evaluator.measure_full(overlay, records, live=live, yield_to_answers=yield_and_pause))
            self._share = (1 + parts.index("full")) / len(parts)
        if "capability" in parts:
            result["capability"] = dict(self._evaluator.measure_capability(overlay, yield_to_answers=yield_and_pause))
        return _Measured(_finite(result), [_shorten(outcome) for outcome in consistent])

    def _overlay(self, due: Evaluation) -> Overlay:
        with self._context.store.read() as connection:
            version = versions.get(connection, due.version)
        return self._context.checkpoints.get_overlay(version)

    def _records(self, due: Evaluation) -> list[Record]:
        """The records of an evaluation: stored edits in the order of their posting, inline records in the given order."""
        with self._context.store.read() as connection:
            request = evaluations.read_request(connection, due.id)
            if "edits" in request:
                return [build_record(edit, id=edit.id) for edit in edits.read_many(connection, request["edits"])]
        return [from_json(stored) for stored in request["records"]]

    def _live(self, version: int) -> list[Record]:
        with self._context.store.read() as connection:
            live = [item.edit_id for item in versions.read_live_set(connection, version).live]
            return [build_record(lesson, id=str(number)) for number, lesson in enumerate(edits.read_requests(connection, live))]

    def _write_progress(self, due: Evaluation) -> None:
        share = round(self._share, 2)
        if share == self._written:  # a row may hold megabytes, and an update writes the whole row
            return
        with self._context.store.write() as connection:
            evaluations.write_progress(connection, due.id, share)
        self._written = share

    def _finish(self, due: Evaluation, measured: _Measured) -> None:
        """Write the result, then end the task: if the database is away, the next step writes the result."""
        with self._context.store.write() as connection:
            evaluations.finish(connection, due.id, result=measured.result, outcomes=measured.outcomes, now=self._context.clock())
        self.close()

    def _fail(self, due: Evaluation, reason: str) -> None:
        self.close()
        with self._context.store.write() as connection:
            evaluations.finish(connection, due.id, error=reason, now=self._context.clock())


def question_digest(outcome: Outcome) -> str:
    """A digest of a question's content, by which two evaluations are compared on the questions they share."""
    question = outcome.question
    content = json.dumps([question.kind, question.surface, question.prompt, question.answer], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _shorten(outcome: Outcome) -> list[Any]:
    return [question_digest(outcome), KINDS.index(outcome.question.kind), int(outcome.greedy), round(outcome.tokens, 4)]


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinities, which JSON does not have: such a figure is unknown."""
    match value:
        case dict():
            return {name: _finite(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _parts_of(about: Mapping[str, Any]) -> list[str]:
    parts = {"questions": True, "full": about.get("metrics") == "full", "capability": about.get("capability", False)}
    return [name for name, is_requested in parts.items() if is_requested]


def _check_can_answer(status: VersionStatus) -> None:
    if status is VersionStatus.COLLECTED:
        raise Gone("this version was collected", field="version")
    if status is VersionStatus.CORRUPT:
        raise Corrupt("the checkpoint of this version is damaged")


def _resolve(connection: Connection, version: int, selection: Selection) -> tuple[dict[str, Any], dict[str, Any]]:
    """The selection as the row stores it, and its summary. Raises NotFound or TooLong."""
    if selection == "none":
        return {"edits": []}, {"edits": "none", "count": 0}
    if selection == "live":
        found = [item.edit_id for item in versions.read_live_set(connection, version).live]
        forced = edits.find_accepted_anyway(connection, found)
        live = [edit_id for edit_id in found if edit_id not in forced]
        if not live:
            raise Refused("this version has no live edit to ask about: name edits, or none with capability", field="edits")
        chosen = choose_evenly(live, MAX_EDITS)
        about: dict[str, Any] = {"edits": "live", "count": len(chosen), "of": len(live)}
        return {"edits": chosen}, about | ({"accepted_anyway": len(forced)} if forced else {})
    if len(selection) > MAX_EDITS:
        raise TooLong(f"an evaluation takes at most {MAX_EDITS} edits", field="edits")
    if isinstance(selection[0], str):
        ids = list(dict.fromkeys(str(edit_id) for edit_id in selection))
        if len(edits.read_many(connection, ids)) != len(ids):
            raise NotFound("edits names an edit that does not exist", field="edits")
        return {"edits": ids}, {"edits": "ids", "count": len(ids)}
    records = [_record_json(record, number) for number, record in enumerate(selection)]
    return {"records": records}, {"edits": "records", "count": len(records)}


def _record_json(record: object, number: int) -> dict[str, Any]:
    """An inline record as JSON."""
    assert isinstance(record, (Record, EditRequest))
    return to_json(record if isinstance(record, Record) else build_record(record, id=str(number)))
