"""What the cadence decides on: the window, the deferred edits and the head's figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.cadence import CadenceInputs
from service.domain.edit import EditStatus
from service.domain.version import BASE, ROLLBACK, Version
from service.editors.registry import names_of
from service.lifecycle.context import LifecycleContext
from service.lifecycle.locality import FIXED, kept_of
from service.store import edits, heads, jobs, measurements, versions
from service.store.measurements import Measurement

MAX_SETBACKS = 32  # read at most: after so many in a row the pause has long had its greatest length
UNPUBLISHED = ("failed", "cancelled")


@dataclass(frozen=True)
class RetrainHistory:
    """How the last retrains ended. `setbacks` counts the latest ones in a row that published nothing."""

    setbacks: int = 0
    last_setback_at: datetime | None = None  # when the last of them ended
    was_cancelled: bool = False
    is_underway: bool = False


def read_cadence_inputs(connection: Connection, context: LifecycleContext) -> CadenceInputs:
    """Read what the cadence decides on."""
    head = heads.read(connection)
    version = versions.get(connection, head.version)
    live_set = versions.read_live_set(connection, head.version)
    deferred, oldest = edits.read_count_and_oldest(connection, EditStatus.DEFERRED)
    window_only = [item.edit_id for item in live_set.window if item.is_live and not item.is_in_tensors]
    forced = edits.find_accepted_anyway(connection, window_only) if window_only else set()
    untried = [edit_id for edit_id in window_only if edit_id not in forced]
    history = read_retrain_history(connection)
    now = context.clock()
    return CadenceInputs(
        window=version.window,
        tokens=edits.sum_tokens(connection, [item.edit_id for item in live_set.window]),
        untried=len(untried),
        oldest_untried_s=_age(edits.read_first_applied_at(connection, untried), now),
        deferred=deferred,
        oldest_deferred_s=_age(oldest, now),
        has_retracted_in_tensors=any(item.is_tombstone for item in live_set.window),
        is_retrain_active=history.is_underway,
        setbacks=history.setbacks,
        since_setback_s=_age(history.last_setback_at, now),
        is_last_cancelled=history.was_cancelled,
        new_edits=edits.count_new_since(connection, untried, history.last_setback_at)
        if history.was_cancelled and history.last_setback_at is not None
        else 0,
        has_tensors=bool(live_set.in_tensors),
        minors=version.minors,
        since_major_s=None if version.major_at is None else _age(version.major_at, now),
        **_figures(connection, version),
    )


def read_retrain_history(connection: Connection) -> RetrainHistory:
    """How the last retrains ended, without the running one."""
    last = jobs.read_recent_statuses(connection, "retrain", limit=MAX_SETBACKS)
    ended = [(status, at) for status, at in last if at is not None]
    setbacks = list(takewhile(lambda entry: entry[0] in UNPUBLISHED, ended))
    status, ended_at = setbacks[0] if setbacks else (None, None)
    return RetrainHistory(len(setbacks), ended_at, status == "cancelled", is_underway=len(ended) < len(last))


def read_tensor_scores(connection: Connection, version: Version, *, minors: int) -> Mapping[str, Any]:
    """The scores of tensors without a window: of the retrain that is `minors` minor ones after the major one, among the
    retrains that lead to a version. Empty where they are unknown. The base's own tensors keep everything by definition.
    """
    if version.major_at is None:
        return dict.fromkeys(FIXED, 1.0)
    retrained = versions.find_latest_retrain(connection, version, kinds=names_of("consolidating"), minors=minors)
    scores: Mapping[str, Any] = {} if retrained is None else retrained.scores.get("tensors", {})
    return scores


def _figures(connection: Connection, version: Version) -> dict[str, float | None]:
    known = {name: measurement.score for name, measurement in _current_measurements(connection, version).items()}
    tensors = read_tensor_scores(connection, version, minors=version.minors)
    return {
        "retention": known.get(measurements.RETENTION, version.scores.get("retention")),
        "retention_at_retrain": tensors.get("retention"),
        "locality": known.get(measurements.FAR, kept_of(version.scores, "far")),
        "locality_at_retrain": tensors.get("far"),
        "locality_at_major": read_tensor_scores(connection, version, minors=0).get("far"),
        "capability": known.get(measurements.CAPABILITY),
    }


def _current_measurements(connection: Connection, version: Version) -> Mapping[str, Measurement]:
    """Measurements of a version, or of its nearest predecessor with the same tensors. Older measurements are left out: a
    retrain that they make due would change nothing.
    """
    measured = measurements.read_nearest(connection, version.number)
    oldest = min((measurement.version for measurement in measured.values()), default=version.number)
    moving_tensors = (*names_of("consolidating"), ROLLBACK, BASE)
    since = versions.find_last_of_kinds(connection, moving_tensors, after=oldest, until=version.number) or 0
    return {name: measurement for name, measurement in measured.items() if measurement.version >= since}


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
