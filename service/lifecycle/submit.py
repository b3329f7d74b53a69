"""Submitting edits: one transaction writes the edits, their events and the idempotency key. Acknowledged edits are durable;
their order is the order of commits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.deferral import Deferral
from service.domain.edit import ANYWAY, AUTO, BY_SUBJECT, MAX_ALIASES, Edit, EditRequest, EditStatus, has_letters, normalise
from service.domain.errors import Refused, TooLong, Unavailable
from service.editors.registry import DEFAULT_INCREMENTAL, find_method, is_consolidating
from service.lifecycle.crash_points import crash_point
from service.store import edits, events, heads, idempotency
from service.store.clock import read_now
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest
from service.store.ids import new_id

MAX_EDITS = 1_000
MAX_PROBES = 64  # of one kind in one edit, with the probes that identical requests add
MAX_KEY_CHARACTERS = 255
NEEDS_RETRAIN = "its method makes it live by a retrain"

CostFunction = Callable[[EditRequest, int], int]


def zero_cost(request: EditRequest, position: int) -> int:
    """For stores without a model: costs are unknown, and nothing is refused."""
    return 0


@dataclass(frozen=True)
class SubmitReceipt:
    """The ids of a submission: for each request the id of its edit, and whether the edit was there before."""

    accepted: tuple[tuple[str, bool], ...]
    replayed: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(edit_id for edit_id, _ in self.accepted)


def submit(
    store: Store,
    requests: Sequence[EditRequest],
    *,
    author: str,
    idempotency_key: str | None = None,
    body_hash: str = "",
    method: str = AUTO,
    incremental_method: str = DEFAULT_INCREMENTAL,
    waiting_limit: int = 10_000,
    cost_of: CostFunction = zero_cost,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> SubmitReceipt:
    """Store all requests as edits, or none.

    `cost_of(request, position)` returns the tokens that a fit of an edit trains on, or raises for an edit that costs too much.
    It is called for each request together with the edit that the request extends.

    `method` is the setting for edits that name no method. An edit may name a consolidating method, or the incremental method of
    the server. `ring` is called after the commit with the id of each new edit; if
    the call is lost, the worker's sweep finds the row. Raises Refused, TooLong, KeyReused, Gone if all edits made under a key
    were purged, or Unavailable if too many edits wait.
    """
    _check(requests, idempotency_key)
    _check_methods(requests, incremental_method)
    _check_accept(requests, method)
    keyed_request = KeyedRequest(author, idempotency.EDITS, idempotency_key, body_hash)
    if cost_of is not zero_cost:  # before the lock on the head's row, so that other writers do not wait for it
        with store.read() as connection:
            if (answer := idempotency.recall(connection, keyed_request)) is not None:
                return _replay(answer)
            plan = _plan(connection, requests, method=method)
        _costs_of(plan, cost_of)
    with store.write() as connection:
        heads.lock(connection)
        now = now or read_now(connection)
        if (answer := idempotency.recall(connection, keyed_request)) is not None:
            return _replay(answer)
        receipt, new = _accept(connection, requests, author=author, method=method, cost_of=cost_of, now=now)
        if new and edits.count(connection, EditStatus.QUEUED) > waiting_limit:
            raise Unavailable("too many edits wait to be applied; send this one again later", retry_after_s=5.0)
        answer = {"edits": [list(outcome) for outcome in receipt.accepted]}
        idempotency.remember(connection, keyed_request, answer, now=now)
        crash_point("submit.before_commit")
    crash_point("submit.after_commit")
    if ring is not None:
        for edit_id in new:
            ring(edit_id)
    return receipt


@dataclass
class _NewEdit:
    """A new edit. Further requests of the same submission for the same fact and target are merged into it."""

    id: str
    status: EditStatus
    request: EditRequest
    position: int  # of the last request that it holds


@dataclass
class _Plan:
    """The effect of a submission: new edits, extensions of edits that were there, and the outcome of each request."""

    new: list[_NewEdit]
    extensions: Mapping[str, tuple[Edit, int]]  # by conflict key, each with the position of the last request that extends it
    outcomes: list[tuple[str, bool]]  # of each request: the id of its edit, and whether the edit was there before


def _plan(connection: Connection, requests: Sequence[EditRequest], *, method: str) -> _Plan:
    new_of_key: dict[str, _NewEdit] = {}
    extensions: dict[str, tuple[Edit, int]] = {}
    outcomes: list[tuple[str, bool]] = []
    new: list[_NewEdit] = []
    for position, request in enumerate(requests):
        key = edits.key_digest(request)
        new_edit = new_of_key.get(key)
        before = None if new_edit else extensions[key][0] if key in extensions else edits.find_latest_of_key(connection, key)
        old = new_edit.request if new_edit else before
        is_same = old is not None and old.target == request.target
        is_extended = new_edit and is_same and new_edit.request.accept == request.accept
        if new_edit and is_extended and _has_surfaces(new_edit.request, request) and _has_scope(new_edit.request, request):
            new_edit.request, new_edit.position = replace(new_edit.request, **_merged_probes(new_edit.request, request)), position
            outcomes.append((new_edit.id, True))
        elif before and is_same and _covers(before, request):
            more = replace(before, **_merged_probes(before, request))
            if more != before:
                extensions[key] = (more, position)
            outcomes.append((before.id, True))
        else:
            status = first_status(request.method, method)
            new_of_key[key] = _NewEdit(new_id(), status, _merged_request(old, request) if old and is_same else request, position)
            new.append(new_of_key[key])
            outcomes.append((new_of_key[key].id, False))
    return _Plan(new, extensions, outcomes)


def _costs_of(plan: _Plan, cost_of: CostFunction) -> tuple[dict[str, int], dict[str, int]]:
    """The costs of the new edits and of the extended ones, by id. Each is computed once, at the end: a batch may extend one
    edit a thousand times.
    """
    return (
        {entry.id: cost_of(entry.request, entry.position) for entry in plan.new},
        {edit.id: cost_of(edit, position) for edit, position in plan.extensions.values()},
    )


def _accept(
    connection: Connection, requests: Sequence[EditRequest], *, author: str, method: str, cost_of: CostFunction, now: datetime
) -> tuple[SubmitReceipt, list[str]]:
    plan = _plan(connection, requests, method=method)
    tokens, extension_tokens = _costs_of(plan, cost_of)
    for edit, _ in plan.extensions.values():
        edits.write_probes(connection, edit, extension_tokens[edit.id])
    first = heads.take_seqs(connection, len(plan.new)) if plan.new else 0
    rows = [(entry.id, first + index, entry.status, entry.request) for index, entry in enumerate(plan.new)]
    edits.insert(connection, rows, author=author, now=now, tokens=tokens, deferral=Deferral(reason=NEEDS_RETRAIN))
    new_events = [
        Event(type="edit.accepted", edit_id=edit_id, author=author, data={"seq": seq, "accept": request.accept})
        for edit_id, seq, _, request in rows
    ]
    events.write(connection, new_events, now=now)
    return SubmitReceipt(tuple(plan.outcomes)), [entry.id for entry in plan.new]


def _covers(edit: Edit, request: EditRequest) -> bool:
    """Whether an edit teaches all that a request for its fact and target asks. An edit that waits can be extended; an edit that
    is or was fitted has learned its own wordings only. An edit that is not live yet is accepted as its own request said.
    """
    extended = replace(edit, **edits.merge_probes(edit, request)) if edit.status is EditStatus.QUEUED else edit
    is_accepted_alike = edit.accept == request.accept or edit.status.is_live
    acts_alike = _has_surfaces(edit, request) and _has_scope(edit, request)
    return is_accepted_alike and acts_alike and _trained_pairs(request) <= _trained_pairs(extended)


def _has_surfaces(old: EditRequest, request: EditRequest) -> bool:
    """Whether a request names no surface beyond those of another. No surfaces means all."""
    return not old.surfaces or (bool(request.surfaces) and set(request.surfaces) <= set(old.surfaces))


def _has_scope(old: EditRequest, request: EditRequest) -> bool:
    """Whether a request has the scope of another, and names its subject by no further name."""
    return old.scope == request.scope and set(request.names) <= set(old.names)


def _trained_pairs(request: EditRequest) -> set[tuple[str, str]]:
    """What a request trains: wordings with their answers. White space makes no difference, as in a conflict key."""
    trained = {(normalise(probe.prompt), probe.answer or request.target) for probe in request.rephrases if probe.train}
    return {(normalise(request.prompt), request.target)} | trained


def _merged_request(old: EditRequest, request: EditRequest) -> EditRequest:
    """A request that takes the place of one with the same fact and target: with its wordings, probes, surfaces and names."""
    surfaces = tuple(dict.fromkeys((*old.surfaces, *request.surfaces))) if old.surfaces and request.surfaces else ()
    aliases = (*request.aliases, *(name for name in old.names if name not in request.names))
    if len(aliases) > MAX_ALIASES:
        raise TooLong(
            f"aliases would be more than {MAX_ALIASES} together with the names of the edit that says the same already",
            field="aliases",
        )
    return replace(request, surfaces=surfaces, aliases=aliases, **_merged_probes(request, old))


def first_status(method: str, setting: str) -> EditStatus:
    """The first status of an edit: `deferred` for a consolidating method, which waits for the next retrain; else `queued`."""
    resolved = setting if method == AUTO else method
    return EditStatus.DEFERRED if is_consolidating(resolved) else EditStatus.QUEUED


def _replay(answer: Mapping[str, Sequence[tuple[str | None, bool]]]) -> SubmitReceipt:
    """The receipt of a stored answer, without edits that were purged since."""
    return SubmitReceipt(tuple((edit_id, is_old) for edit_id, is_old in answer["edits"] if edit_id is not None), replayed=True)


def _merged_probes(old: EditRequest, request: EditRequest) -> Mapping[str, Any]:
    """The probes of both. Raises TooLong if these are more than one edit may have."""
    probes = edits.merge_probes(old, request)
    for kind, merged in probes.items():
        if len(merged) > max(MAX_PROBES, len(getattr(old, kind)), len(getattr(request, kind))):
            raise TooLong(
                f"{kind} would be more than {MAX_PROBES} together with those of the edit that says the same already", field=kind
            )
    return probes


def _check(requests: Sequence[EditRequest], idempotency_key: str | None) -> None:
    if not requests:
        raise Refused("edits must hold at least one edit", field="edits")
    if len(requests) > MAX_EDITS:
        raise TooLong(f"edits must hold at most {MAX_EDITS} edits", field="edits")
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_KEY_CHARACTERS:
        raise Refused(f"Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} characters", field="Idempotency-Key")
    for request in requests:
        for name in ("prompt", "target"):
            if not getattr(request, name).strip():
                raise Refused(f"{name} must not be blank", field=name)
        for name in ("prompt", "target", "subject", "relation", "ground_truth", "conflict_key"):
            if not _is_storable(getattr(request, name) or ""):
                raise Refused(f"{name} must be valid Unicode without NUL", field=name)
        _check_names(request)


def _check_names(request: EditRequest) -> None:
    if len(request.aliases) > MAX_ALIASES:
        raise TooLong(f"aliases must hold at most {MAX_ALIASES} names", field="aliases")
    if not all(alias.strip() and _is_storable(alias) for alias in request.aliases):
        raise Refused("aliases must hold names in valid Unicode without NUL, none of them blank", field="aliases")
    if request.scope == BY_SUBJECT and not any(map(has_letters, request.names)):
        raise Refused(f"scope must not be '{BY_SUBJECT}' without a subject or an alias", field="scope")


def _check_methods(requests: Sequence[EditRequest], incremental_method: str) -> None:
    for name in {request.method for request in requests} - {AUTO, incremental_method}:
        if find_method(name).role == "incremental":
            raise Refused(
                f"method {name} makes edits live at once, for which this server uses {incremental_method}", field="method"
            )


def _check_accept(requests: Sequence[EditRequest], method: str) -> None:
    if any(request.accept == ANYWAY and first_status(request.method, method) is EditStatus.DEFERRED for request in requests):
        raise Refused(
            "accept must be 'judged' for a method that makes edits live by a retrain: a retrain is judged", field="accept"
        )


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
