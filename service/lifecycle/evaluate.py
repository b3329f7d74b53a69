"""Evaluations: asked for in a request, pinned to a version, worked on by the worker a few edits at a time, kept for good.

A step is short, so that edits which arrive meanwhile wait for one step, not for a whole evaluation. What was measured before a
stop is measured again: greedy answers of one version do not change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from service.domain.edit import Edit, EditRequest, Probe
from service.domain.errors import Corrupt, Gone, NotFound, Refused, TooLong, Unavailable
from service.domain.version import VersionStatus
from service.evaluation.metrics import Outcome
from service.evaluation.record import Record, record_of
from service.evaluation.report import report
from service.lifecycle.overlays import Overlays
from service.lm.overlay import Overlay
from service.store import edits, evals, heads, versions
from service.store.evals import Evaluation
from service.store.session import Store

MOST_EDITS = 1_000
MOST_WAITING = 100
EDITS_A_STEP = 4  # about a second of a small model on one busy core

KINDS = ("rephrases", "locality", "portability")

Ask = Callable[[Overlay, Sequence[Record]], list[Outcome]]


def request_eval(
    store: Store,
    *,
    version: int | None,
    asked: Literal["live"] | Sequence[str] | Sequence[EditRequest],
    author: str,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> Evaluation:
    """Queue an evaluation of a version (None: the head of this moment) on its live edits, on edits by id, or on inline records.

    Raises NotFound for an unknown version or edit, Gone or Corrupt for a version that cannot answer, TooLong over 1,000 edits,
    Refused where there is nothing to ask, Unavailable where too many evaluations wait.
    """
    with store.write() as connection:
        if evals.waiting(connection) >= MOST_WAITING:
            raise Unavailable("too many evaluations wait; ask for this one again later", retry_after_s=10.0)
        number = heads.read(connection).version if version is None else version
        _check_answers(versions.get(connection, number).status)
        if asked == "live":
            request: dict[str, Any] = {"edits": [item.edit_id for item in versions.live_set(connection, number).live]}
        elif all(isinstance(one, str) for one in asked):
            request = {"edits": list(dict.fromkeys(asked))}
            if len(edits.many(connection, request["edits"])) != len(request["edits"]):
                raise NotFound("edits names an edit that does not exist", field="edits")
        else:
            request = {"records": [_stored(one) for one in asked if isinstance(one, EditRequest)]}
        count = len(next(iter(request.values())))
        if count > MOST_EDITS:
            raise TooLong(f"an evaluation takes at most {MOST_EDITS} edits", field="edits")
        if not count and asked != "live":
            raise Refused("edits must name at least one edit", field="edits")
        queued = evals.insert(connection, version=number, request=request, author=author, now=now or datetime.now(UTC))
    if ring is not None:
        ring(queued.id)
    return queued


def get_eval(store: Store, eval_id: str) -> Evaluation:
    """One evaluation as it stands. Raises NotFound."""
    with store.read() as connection:
        return evals.get(connection, eval_id)


@dataclass
class _Underway:
    """An evaluation some of whose edits were asked already."""

    evaluation: Evaluation
    overlay: Overlay
    records: list[Record]
    outcomes: list[Outcome] = field(default_factory=list)
    done: int = 0


class Evaluations:
    """The worker's side: `step` does a little of the oldest evaluation that is due."""

    def __init__(
        self, store: Store, overlays: Overlays, ask: Ask, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._overlays, self._ask, self._clock = store, overlays, ask, clock
        self._underway: _Underway | None = None

    def step(self) -> bool:
        """Ask a few edits more; whether there was anything to do. What cannot be asked fails its evaluation, with the reason."""
        with self._store.read() as connection:
            due = evals.oldest_due(connection)
        if due is None:
            self._underway = None
            return False
        try:
            underway = self._resume(due)
            self._ask_some(underway)
        except (NotFound, Gone, Corrupt, Refused) as error:
            self._finish(due, error=error.message)
            return True
        if underway.done == len(underway.records):
            self._finish(due, result=report(underway.outcomes))
        return True

    def _resume(self, due: Evaluation) -> _Underway:
        if self._underway is None or self._underway.evaluation.id != due.id:
            with self._store.write() as connection:
                evals.begin(connection, due.id)
                version = versions.get(connection, due.version)
                records = _records(due.request, edits.many(connection, due.request.get("edits", ())))
            self._underway = _Underway(due, self._overlays.of(version), records)
        return self._underway

    def _ask_some(self, underway: _Underway) -> None:
        some = underway.records[underway.done : underway.done + EDITS_A_STEP]
        if some:
            underway.outcomes += self._ask(underway.overlay, some)
            underway.done += len(some)

    def _finish(self, due: Evaluation, *, result: Mapping[str, Any] | None = None, error: str | None = None) -> None:
        with self._store.write() as connection:
            evals.finish(connection, due.id, result=result, error=error, now=self._clock())
        self._underway = None


def _check_answers(status: VersionStatus) -> None:
    if status is VersionStatus.COLLECTED:
        raise Gone("this version was collected", field="version")
    if status is VersionStatus.CORRUPT:
        raise Corrupt("the checkpoint of this version is damaged")


def _stored(request: EditRequest) -> dict[str, Any]:
    """An inline record as JSON."""
    probes = {kind: [asdict(probe) for probe in getattr(request, kind)] for kind in KINDS}
    return {"prompt": request.prompt, "target": request.target, "surfaces": list(request.surfaces), **probes}


def _records(request: Mapping[str, Any], found: Sequence[Edit]) -> list[Record]:
    """What is asked, in order of acceptance for stored edits, in the order given for inline ones."""
    if "edits" in request:
        return [record_of(edit, id=edit.id) for edit in found]
    return [record_of(_request(stored), id=str(number)) for number, stored in enumerate(request["records"])]


def _request(stored: Mapping[str, Any]) -> EditRequest:
    rephrases, locality, portability = (tuple(Probe(**probe) for probe in stored[kind]) for kind in KINDS)
    return EditRequest(
        prompt=stored["prompt"],
        target=stored["target"],
        surfaces=tuple(stored["surfaces"]),
        rephrases=rephrases,
        locality=locality,
        portability=portability,
    )
