"""Accepting edits: one transaction writes edits, events and the idempotency key. What is acknowledged is durable; order is
order of commit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.edit import Edit, EditRequest, EditStatus, Method, normalise
from service.domain.errors import Refused, TooLong, Unavailable
from service.lifecycle.crash_points import crash_point
from service.store import edits, events, heads, idempotency
from service.store.clock import read_now
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest
from service.store.ids import new_id

MOST_EDITS = 1_000
MOST_PROBES = 64  # of one kind in one edit, with those that identical requests add to it
KEY_CHARACTERS = 255

CostFunction = Callable[[EditRequest, int], int]


def zero_cost(request: EditRequest, at: int) -> int:
    """For stores without a model: nothing is known, and nothing refused."""
    return 0


@dataclass(frozen=True)
class AcceptedRequest:
    """One request of a submission: the edit that stands for it, and whether it was there before and teaches it already."""

    edit: Edit
    is_identical: bool


@dataclass(frozen=True)
class SubmitResult:
    """What a submission was answered with, in the order of its requests. `replayed`: an idempotency key had been used before."""

    accepted: tuple[AcceptedRequest, ...]
    replayed: bool = False

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(one.edit for one in self.accepted)


@dataclass(frozen=True)
class SubmitReceipt:
    """What a submission came to: of each request the id of the edit that stands for it, and whether that was there before."""

    accepted: tuple[tuple[str, bool], ...]
    replayed: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(edit_id for edit_id, _ in self.accepted)


def submit(store: Store, requests: Sequence[EditRequest], **how: Any) -> SubmitResult:
    """The same as `accept`, with the edits as they are then: all of them in memory, with all that they hold."""
    receipt = accept(store, requests, **how)
    with store.read() as connection:
        found = {edit.id: edit for edit in edits.read_many(connection, set(receipt.ids))}
    return SubmitResult(tuple(AcceptedRequest(found[edit_id], is_old) for edit_id, is_old in receipt.accepted), receipt.replayed)


def accept(
    store: Store,
    requests: Sequence[EditRequest],
    *,
    author: str,
    idempotency_key: str | None = None,
    body_hash: str = "",
    method: str = "auto",
    waiting_limit: int = 10_000,
    cost_of: CostFunction = zero_cost,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> SubmitReceipt:
    """Accept all requests or none.

    `weigh` says what a fit of an edit is given, or raises for one that costs too much: it is asked for what every request comes
    to together with the edit that it is added to, and told the request's place.

    `method` is the setting that says who carries an edit that names no method. `ring` is called after the commit with each new
    edit's id; if the call is lost, the worker's sweep finds the row. Raises Refused, TooLong, KeyReused, Gone if all that was
    made under a key was purged, or Unavailable if too many edits wait.
    """
    _check(requests, idempotency_key)
    asked = KeyedRequest(author, idempotency.EDITS, idempotency_key, body_hash)
    if cost_of is not zero_cost:  # ahead, so that next to nothing is left to be weighed while everybody waits for the head's row
        with store.read() as connection:
            if (answer := idempotency.recall(connection, asked)) is not None:
                return _replay(answer)
            ahead = _plan(connection, requests, method=method)
        _costs_of(ahead, cost_of)
    with store.write() as connection:
        heads.lock(connection)
        now = now or read_now(connection)
        if (answer := idempotency.recall(connection, asked)) is not None:
            return _replay(answer)
        receipt, new = _accept(connection, requests, author=author, method=method, cost_of=cost_of, now=now)
        if new and edits.count(connection, EditStatus.QUEUED) > waiting_limit:
            raise Unavailable("too many edits wait to be applied; send this one again later", retry_after_s=5.0)
        made = {"edits": [list(one) for one in receipt.accepted]}
        idempotency.remember(connection, asked, made, now=now)
        crash_point("submit.before_commit")
    crash_point("submit.after_commit")
    if ring is not None:
        for edit_id in new:
            ring(edit_id)
    return receipt


@dataclass
class _New:
    """An edit in the making; what the same submission asks of the same fact, to the same target, is added to it."""

    id: str
    status: EditStatus
    request: EditRequest
    at: int  # the place of the last request that it was made of


@dataclass
class _Plan:
    """What some requests come to: new edits, edits that were there and are told more, and which edit stands for each request,
    with whether it was there before it.
    """

    new: list[_New]
    told: Mapping[str, tuple[Edit, int]]  # by conflict key, each with the place of the last request that it was told by
    order: list[tuple[str, bool]]


def _plan(connection: Connection, requests: Sequence[EditRequest], *, method: str) -> _Plan:
    standing: dict[str, _New] = {}  # the new edit that stands for a conflict key
    told: dict[str, tuple[Edit, int]] = {}
    order: list[tuple[str, bool]] = []
    new: list[_New] = []
    for at, request in enumerate(requests):
        key = edits.key_digest(request)
        made = standing.get(key)
        before = None if made else told[key][0] if key in told else edits.find_latest_of_key(connection, key)
        known = made.request if made else before
        is_same = known is not None and known.target == request.target
        if made and is_same and _has_surfaces(made.request, request):
            made.request, made.at = replace(made.request, **_together(made.request, request)), at
            order.append((made.id, True))
        elif before and is_same and _is_learned(before, request):
            more = replace(before, **_together(before, request))
            if more != before:
                told[key] = (more, at)
            order.append((before.id, True))
        else:
            status = first_status(request.method, method)
            standing[key] = _New(new_id(), status, _carrying(known, request) if known and is_same else request, at)
            new.append(standing[key])
            order.append((standing[key].id, False))
    return _Plan(new, told, order)


def _costs_of(plan: _Plan, cost_of: CostFunction) -> tuple[dict[str, int], dict[str, int]]:
    """What fits of the new edits, and of those that are told more, are given; by id. Once each, at the end: an edit may be told
    more a thousand times in one batch.
    """
    return (
        {one.id: cost_of(one.request, one.at) for one in plan.new},
        {edit.id: cost_of(edit, at) for edit, at in plan.told.values()},
    )


def _accept(
    connection: Connection, requests: Sequence[EditRequest], *, author: str, method: str, cost_of: CostFunction, now: datetime
) -> tuple[SubmitReceipt, list[str]]:
    plan = _plan(connection, requests, method=method)
    tokens, tokens_told = _costs_of(plan, cost_of)
    for edit, _ in plan.told.values():
        edits.write_probes(connection, edit, tokens_told[edit.id])
    first = heads.take_seqs(connection, len(plan.new)) if plan.new else 0
    rows = [(one.id, first + index, one.status, one.request) for index, one in enumerate(plan.new)]
    edits.insert(connection, rows, author=author, now=now, tokens=tokens)
    happened = [Event(type="edit.accepted", edit_id=edit_id, author=author, data={"seq": seq}) for edit_id, seq, _, _ in rows]
    events.write(connection, happened, now=now)
    return SubmitReceipt(tuple(plan.order)), [one.id for one in plan.new]


def _is_learned(edit: Edit, request: EditRequest) -> bool:
    """Whether an edit teaches all that a request of its fact and target asks for: what waits can be told more, what was fitted,
    or is being, has learned the wordings that it had.
    """
    told = replace(edit, **edits.merge_probes(edit, request)) if edit.status is EditStatus.QUEUED else edit
    return _has_surfaces(edit, request) and _lessons(request) <= _lessons(told)


def _has_surfaces(known: EditRequest, request: EditRequest) -> bool:
    """Whether a request names no surface beyond those of another; no surfaces at all stand for every one."""
    return not known.surfaces or (bool(request.surfaces) and set(request.surfaces) <= set(known.surfaces))


def _lessons(request: EditRequest) -> set[tuple[str, str]]:
    """What is learned of a request: wordings with their answers. White space makes no other wording, as in a conflict key."""
    trained = {(normalise(probe.prompt), probe.answer or request.target) for probe in request.rephrases if probe.train}
    return {(normalise(request.prompt), request.target)} | trained


def _carrying(known: EditRequest, request: EditRequest) -> EditRequest:
    """A request that shall take the place of what teaches the same already: with its wordings, probes and surfaces."""
    surfaces = tuple(dict.fromkeys((*known.surfaces, *request.surfaces))) if known.surfaces and request.surfaces else ()
    return replace(request, surfaces=surfaces, **_together(request, known))


def first_status(asked: Method, setting: str) -> EditStatus:
    """An edit for LocFT-BF waits for the next retrain; every other one is queued."""
    chosen = setting if asked is Method.AUTO else str(asked)
    return EditStatus.DEFERRED if chosen == Method.LOCFT else EditStatus.QUEUED


def _replay(answer: Mapping[str, Sequence[tuple[str | None, bool]]]) -> SubmitReceipt:
    """The edits of the first answer, less those that were purged."""
    return SubmitReceipt(tuple((edit_id, is_old) for edit_id, is_old in answer["edits"] if edit_id is not None), replayed=True)


def _together(known: EditRequest, request: EditRequest) -> Mapping[str, Any]:
    """The probes of both. Raises TooLong if these are more than one edit may have."""
    probes = edits.merge_probes(known, request)
    for kind, found in probes.items():
        if len(found) > max(MOST_PROBES, len(getattr(known, kind)), len(getattr(request, kind))):
            raise TooLong(
                f"{kind} would be more than {MOST_PROBES} together with those of the edit that says the same already", field=kind
            )
    return probes


def _check(requests: Sequence[EditRequest], idempotency_key: str | None) -> None:
    if not requests:
        raise Refused("edits must hold at least one edit", field="edits")
    if len(requests) > MOST_EDITS:
        raise TooLong(f"edits must hold at most {MOST_EDITS} edits", field="edits")
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= KEY_CHARACTERS:
        raise Refused(f"Idempotency-Key must have 1 to {KEY_CHARACTERS} characters", field="Idempotency-Key")
    for request in requests:
        for name in ("prompt", "target"):
            if not getattr(request, name).strip():
                raise Refused(f"{name} must not be blank", field=name)
        for name in ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key"):
            if not _storable(getattr(request, name) or ""):
                raise Refused(f"{name} must be valid Unicode without NUL", field=name)


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
