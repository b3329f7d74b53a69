"""Where the window, the deferred edits and the figures of the head stand now: what the cadence decides on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.cadence import CadenceInputs
from service.domain.edit import EditStatus
from service.domain.version import Version, VersionKind
from service.lifecycle.context import LifecycleContext
from service.store import edits, heads, jobs, measurements, versions
from service.store.measurements import Measurement

SETBACKS = 32  # looked at: after so many in a row the pause has been at its longest for long
UNPUBLISHED = ("failed", "cancelled")
MOVES_TENSORS = (VersionKind.LOCFT, VersionKind.ROLLBACK)


@dataclass(frozen=True)
class RetrainHistory:
    """How the last retrains ended: `setbacks` in a row, up to the last, published nothing."""

    setbacks: int = 0
    at: datetime | None = None  # when the last of these ended
    cancelled: bool = False
    is_underway: bool = False


def read_cadence_inputs(connection: Connection, context: LifecycleContext) -> CadenceInputs:
    """Read the standing."""
    head = heads.read(connection)
    version = versions.get(connection, head.version)
    live_set = versions.read_live_set(connection, head.version)
    deferred, oldest = edits.read_count_and_oldest(connection, EditStatus.DEFERRED)
    untried = [item.edit_id for item in live_set.window if item.is_live and not item.is_in_tensors]
    ended = read_retrain_history(connection)
    now = context.clock()
    return CadenceInputs(
        window=version.window,
        tokens=edits.sum_tokens(connection, [item.edit_id for item in live_set.window]),
        untried=len(untried),
        oldest_untried_s=_age(edits.read_first_applied_at(connection, untried), now),
        deferred=deferred,
        oldest_deferred_s=_age(oldest, now),
        has_retracted_in_tensors=any(item.is_tombstone for item in live_set.window),
        is_retrain_active=ended.is_underway,
        setbacks=ended.setbacks,
        since_setback_s=_age(ended.at, now),
        is_last_cancelled=ended.cancelled,
        new_edits=edits.count_new_since(connection, untried, ended.at) if ended.cancelled and ended.at is not None else 0,
        has_tensors=bool(live_set.in_tensors),
        minors=version.minors,
        since_major_s=None if version.major_at is None else _age(version.major_at, now),
        **_figures(connection, version),
    )


def read_retrain_history(connection: Connection) -> RetrainHistory:
    """How the last retrains ended, less the one that is under way."""
    last = jobs.read_recent_statuses(connection, "retrain", limit=SETBACKS)
    over = [(status, at) for status, at in last if at is not None]
    setbacks = list(takewhile(lambda one: one[0] in UNPUBLISHED, over))
    status, at = setbacks[0] if setbacks else (None, None)
    return RetrainHistory(len(setbacks), at, status == "cancelled", is_underway=len(over) < len(last))


def read_tensor_scores(connection: Connection, version: Version, *, minors: int) -> Mapping[str, Any]:
    """What the tensors of the retrain so many minor ones after the major one came to, without any window: of those that lead to
    a version. Empty where that is not known, and 1 by definition for the base's own tensors.
    """
    if version.major_at is None:
        return {"canary": 1.0}
    retrained = versions.find_latest_retrain(connection, version, minors=minors)
    scores: Mapping[str, Any] = {} if retrained is None else retrained.scores.get("tensors", {})
    return scores


def _figures(connection: Connection, version: Version) -> dict[str, float | None]:
    known = {name: one.score for name, one in _still_true(connection, version).items()}
    then = read_tensor_scores(connection, version, minors=version.minors)
    return {
        "retention": known.get(measurements.RETENTION, version.scores.get("retention")),
        "retention_at_retrain": then.get("retention"),
        "locality": known.get(measurements.OUTSIDE, version.scores.get("canary")),
        "locality_at_retrain": then.get("canary"),
        "locality_at_major": read_tensor_scores(connection, version, minors=0).get("canary"),
        "capability": known.get(measurements.CAPABILITY),
    }


def _still_true(connection: Connection, version: Version) -> Mapping[str, Measurement]:
    """Figures of a version, or of the nearest one before it; none from before its tensors became what they are: a retrain that
    an older figure made due again would be made for nothing.
    """
    found = measurements.read_nearest(connection, version.number)
    oldest = min((one.version for one in found.values()), default=version.number)
    since = versions.find_last_of_kinds(connection, MOVES_TENSORS, after=oldest, until=version.number) or 0
    return {name: one for name, one in found.items() if one.version >= since}


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
