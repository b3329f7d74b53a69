"""Evaluations: asked for in a request, pinned to a version, worked on by the worker a little at a time, kept for good.

A step is short and gives way to answers and to fits of edits, so that an evaluation takes as long as the live traffic lets it.
What was measured before a stop is measured again: greedy answers of one version do not change.
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
from service.domain.version import VersionStatus
from service.evaluation.contradictions import drop_contradicted
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import Record, build_record, from_json, to_json
from service.evaluation.report import KINDS, build_report
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lm.overlay import Overlay
from service.store import edits, evaluations, heads, idempotency, list_rows, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.evaluations import Evaluation
from service.store.idempotency import KeyedRequest, unkeyed_request
from service.store.list_rows import ListedEval

MAX_EDITS = 1_000
MAX_WAITING = 100
EDITS_AT_ONCE = 4  # asked together
STEP_S = 0.25  # of work before other chores have their turn

log = structlog.get_logger("errata.evaluate")

Metrics = Literal["standard", "full"]
METRICS: tuple[Metrics, ...] = ("standard", "full")
Selection = Literal["live", "none"] | Sequence[str] | Sequence[Record] | Sequence[EditRequest]
Between = Callable[[], None]


class OverlayEvaluator(Protocol):
    """What is asked of an overlay. `between` is called between small steps, and may not return for long."""

    def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Between) -> list[Outcome]:
        """Every question of every record."""
        ...

    def measure_full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], between: Between
    ) -> Mapping[str, Any]:
        """All metrics of the field; `live` are the edits that the version holds."""
        ...

    def measure_capability(self, overlay: Overlay, *, between: Between) -> Mapping[str, Any]:
        """What the version still solves, as a share of what the base model solves."""
        ...

    def check_capability(self) -> None:
        """Raise Refused where there are no tasks to solve."""
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
    """Queue an evaluation of a version (None: the head of this moment) on its live edits, on edits by id, or on inline records;
    on `none`, where capability alone is wanted.

    Of more than 1,000 live edits, 1,000 are asked, evenly over all. A version is not collected while an evaluation of it is due.
    A `keyed` request that was answered before is answered with that evaluation as it stands now.

    Raises NotFound for an unknown version or edit, Gone or Corrupt for a version that cannot answer, TooLong over 1,000 edits
    given, Refused where there is nothing to ask or the metrics are unknown, Unavailable where too many evaluations wait.
    """
    if metrics not in METRICS:
        raise Refused("metrics must be standard or full", field="metrics")
    if not isinstance(selection, str) and not selection:
        raise Refused("edits must name at least one edit", field="edits")
    if selection == "none" and not capability:
        raise Refused("edits may be none only where capability is asked for", field="edits")
    once = keyed or unkeyed_request(author)
    with store.write() as connection:
        head = heads.lock(connection)  # as a collection does, so that none takes the version meanwhile
        now = now or read_now(connection)
        if (answer := idempotency.recall(connection, once)) is not None:
            return evaluations.get(connection, answer["eval"])
        if evaluations.count_unfinished(connection) >= MAX_WAITING:
            raise Unavailable("too many evaluations wait; ask for this one again later", retry_after_s=10.0)
        number = head.version if version is None else version
        _check_answers(versions.get(connection, number).status)
        request, about = _request(connection, number, selection)
        queued = evaluations.insert(
            connection,
            version=number,
            request=request,
            about={**about, "metrics": metrics, "capability": capability},
            author=author,
            now=now,
        )
        idempotency.remember(connection, once, {"eval": queued.id}, now=now)
        crash_point("request.before_commit")
    crash_point("request.after_commit")
    if ring is not None:
        ring(queued.id)
    return queued


def get_eval(store: Store, eval_id: str) -> Evaluation:
    """One evaluation as it stands. Raises NotFound."""
    with store.read() as connection:
        return evaluations.get(connection, eval_id)


def list_evals(
    store: Store, *, limit: int, version: int | None = None, status: str | None = None, before: str | None = None
) -> list[ListedEval]:
    """Evaluations in short, newest first; those older than the one with the id `before`. Raises NotFound without such a one."""
    with store.read() as connection:
        return list_rows.read_evals_page(connection, limit=limit, version=version, status=status, before=before)


def cancel_eval(store: Store, eval_id: str, *, now: datetime | None = None) -> Evaluation:
    """End an evaluation that has no outcome yet; it stays in the list. Raises NotFound, Conflict if it has an outcome."""
    with store.write() as connection:
        found = evaluations.get(connection, eval_id)
        if found.status in ("done", "failed"):
            raise Conflict("the evaluation is over; it is kept and cannot be cancelled", field="id")
        evaluations.cancel(connection, eval_id, now=now or read_now(connection))
        return evaluations.get(connection, eval_id)


@dataclass(frozen=True)
class _Found:
    """What came out: the report, and each question in short."""

    result: dict[str, Any]
    outcomes: list[list[Any]]


class Evaluations:
    """The worker's side: `step` does a little of the oldest evaluation that is due."""

    def __init__(self, context: LifecycleContext, measures: OverlayEvaluator, *, step_s: float = STEP_S) -> None:
        self._context, self._measures, self._step_s = context, measures, step_s
        self._underway: tuple[str, CooperativeTask[_Found]] | None = None
        self._share = self._written = 0.0

    def step(self) -> bool:
        """Ask a little more; whether there was anything to do. What cannot be asked fails its evaluation, with the reason."""
        with self._context.store.read() as connection:
            due = evaluations.find_next(connection)
        if due is None or (self._underway is not None and self._underway[0] != due.id):
            self.close()  # it was cancelled, or another process has finished it
        if due is None:
            return False
        try:
            work = self._resume(due)
            is_done = work.run_step()
        except Unavailable:
            self.close()
            raise
        except ServiceError as error:
            self._fail(due, error.message)
            return True
        except Exception as error:  # one that cannot be measured must not hold up all that wait behind it
            log.error("evaluation failed", error=type(error).__name__)
            self._fail(due, f"the evaluation ended with {type(error).__name__}")
            return True
        if is_done:
            self._finish(due, work.result)
        else:
            self._write_progress(due)
        return True

    def close(self) -> None:
        """Let go of what is under way; its row stays as it is, so the next process begins it again."""
        underway, self._underway = self._underway, None
        if underway is not None:
            underway[1].cancel()

    def _resume(self, due: Evaluation) -> CooperativeTask[_Found]:
        if self._underway is None:
            with self._context.store.write() as connection:
                evaluations.begin(connection, due.id, now=self._context.clock())
            self._share = self._written = 0.0
            self._underway = (due.id, CooperativeTask(lambda between: self._measure(due, between), step_s=self._step_s))
        return self._underway[1]

    def _measure(self, due: Evaluation, between: Between) -> _Found:
        """The whole evaluation, as if there were nothing else to do; `between` is where there is."""

        def rest() -> None:
            self._context.yield_to_edits()
            between()

        context = _parts_of(due.about)
        records, overlay, live = self._records(due), self._overlay(due), self._live(due.version)
        outcomes: list[Outcome] = []
        for start in range(0, len(records), EDITS_AT_ONCE):
            outcomes += self._measures.ask(overlay, records[start : start + EDITS_AT_ONCE], between=rest)
            self._share = min(1.0, (start + EDITS_AT_ONCE) / len(records)) / len(context)
            rest()
        kept = drop_contradicted(outcomes, records, live)
        result = build_report(kept, left_out={"contradicted": len(outcomes) - len(kept)})
        if "full" in context:
            result["full"] = dict(self._measures.measure_full(overlay, records, live=live, between=rest))
            self._share = (1 + context.index("full")) / len(context)
        if "capability" in context:
            result["capability"] = dict(self._measures.measure_capability(overlay, between=rest))
        return _Found(_finite(result), [_in_short(outcome) for outcome in kept])

    def _overlay(self, due: Evaluation) -> Overlay:
        with self._context.store.read() as connection:
            version = versions.get(connection, due.version)
        return self._context.checkpoints.get_overlay(version)

    def _records(self, due: Evaluation) -> list[Record]:
        """What is asked, in order of acceptance for stored edits, in the order given for inline ones."""
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
        if share == self._written:  # a row may hold megabytes, and a database writes all of it again
            return
        with self._context.store.write() as connection:
            evaluations.write_progress(connection, due.id, share)
        self._written = share

    def _finish(self, due: Evaluation, found: _Found) -> None:
        """Write the outcome. It is let go of only then: if the database is away, the next step writes it."""
        with self._context.store.write() as connection:
            evaluations.finish(connection, due.id, result=found.result, outcomes=found.outcomes, now=self._context.clock())
        self.close()

    def _fail(self, due: Evaluation, reason: str) -> None:
        self.close()
        with self._context.store.write() as connection:
            evaluations.finish(connection, due.id, error=reason, now=self._context.clock())


def question_digest(outcome: Outcome) -> str:
    """Names a question by its content, so that two evaluations can be compared on the questions they share."""
    question = outcome.question
    content = json.dumps([question.kind, question.surface, question.prompt, question.answer], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _in_short(outcome: Outcome) -> list[Any]:
    return [question_digest(outcome), KINDS.index(outcome.question.kind), int(outcome.greedy), round(outcome.tokens, 4)]


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which are no JSON: a figure that came to one is unknown."""
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
    wanted = {"questions": True, "full": about.get("metrics") == "full", "capability": about.get("capability", False)}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _check_answers(status: VersionStatus) -> None:
    if status is VersionStatus.COLLECTED:
        raise Gone("this version was collected", field="version")
    if status is VersionStatus.CORRUPT:
        raise Corrupt("the checkpoint of this version is damaged")


def _request(connection: Connection, version: int, asked: Selection) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked as the row keeps it, and in short. Raises NotFound or TooLong."""
    if asked == "none":
        return {"edits": []}, {"edits": "none", "count": 0}
    if asked == "live":
        live = [item.edit_id for item in versions.read_live_set(connection, version).live]
        if not live:
            raise Refused("this version has no live edit to ask about: name edits, or none with capability", field="edits")
        some = _evenly(live, MAX_EDITS)
        return {"edits": some}, {"edits": "live", "count": len(some), "of": len(live)}
    if len(asked) > MAX_EDITS:
        raise TooLong(f"an evaluation takes at most {MAX_EDITS} edits", field="edits")
    if isinstance(asked[0], str):
        ids = list(dict.fromkeys(str(one) for one in asked))
        if len(edits.read_many(connection, ids)) != len(ids):
            raise NotFound("edits names an edit that does not exist", field="edits")
        return {"edits": ids}, {"edits": "ids", "count": len(ids)}
    records = [_stored(one, number) for number, one in enumerate(asked)]
    return {"records": records}, {"edits": "records", "count": len(records)}


def _stored(one: object, number: int) -> dict[str, Any]:
    """An inline record as JSON."""
    assert isinstance(one, (Record, EditRequest))
    return to_json(one if isinstance(one, Record) else build_record(one, id=str(number)))


def _evenly(ids: Sequence[str], most: int) -> list[str]:
    """At most `most` of them, evenly over all."""
    if len(ids) <= most:
        return list(ids)
    return [ids[number * len(ids) // most] for number in range(most)]
