"""Following what a server does in the background, as steps without I/O: edits until they are settled, jobs and evaluations until
their end.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from service.client.calls import get_edit, get_evaluation, get_job, list_jobs
from service.client.errors import TimedOut
from service.client.shapes import EditData, EditStatusText, EvaluationData, JobData
from service.client.steps import Pause, Steps
from service.domain.errors import Conflict

UNSETTLED: tuple[EditStatusText, ...] = ("queued", "applying")
POLL_S = 0.2
FollowedT = TypeVar("FollowedT", bound=Mapping[str, Any])


def wait_for_edit(edit_id: str, *, timeout_s: float | None = None) -> Steps[EditData]:
    """Wait until an edit is settled. Raises TimedOut if it is not within `timeout_s` seconds."""
    return _follow(edit_id, get_edit, lambda edit: edit["status"] not in UNSETTLED, "the edit", None, timeout_s)


def wait_for_job(
    job: JobData | str, *, on_progress: Callable[[JobData], None] | None = None, timeout_s: float | None = None
) -> Steps[JobData]:
    """Wait until a job, given as it was answered or by its id, has ended, well or not, and call `on_progress` with each state.
    Raises TimedOut if it does not end within `timeout_s` seconds.
    """
    return _follow(job, get_job, _has_ended, "the job", on_progress, timeout_s)


def wait_for_evaluation(
    evaluation: EvaluationData | str,
    *,
    on_progress: Callable[[EvaluationData], None] | None = None,
    timeout_s: float | None = None,
) -> Steps[EvaluationData]:
    """Wait until an evaluation, given as it was answered or by its id, has ended, well or not, and call `on_progress` with each
    state. Raises TimedOut if it does not end within `timeout_s` seconds.
    """
    return _follow(evaluation, get_evaluation, _has_ended, "the evaluation", on_progress, timeout_s)


def follow_job(
    job: JobData | str, *, on_progress: Callable[[JobData], None] | None = None, timeout_s: float | None = None
) -> Steps[JobData]:
    """`wait_for_job`, for a job that must end well. Raises Conflict, with its error, if it does not."""
    ended = yield from wait_for_job(job, on_progress=on_progress, timeout_s=timeout_s)
    if ended["status"] != "done":
        raise Conflict(ended["error"] or f"the {ended['kind']} was {ended['status']}")
    return ended


def follow_evaluation(
    evaluation: EvaluationData | str,
    *,
    on_progress: Callable[[EvaluationData], None] | None = None,
    timeout_s: float | None = None,
) -> Steps[EvaluationData]:
    """`wait_for_evaluation`, for an evaluation that must have a result. Raises Conflict, with its error, if it has none."""
    ended = yield from wait_for_evaluation(evaluation, on_progress=on_progress, timeout_s=timeout_s)
    if ended["status"] != "done":
        raise Conflict(ended["error"] or f"the evaluation was {ended['status']}")
    return ended


def wait_for_refits() -> Steps[None]:
    """Wait until no refit is queued or running: after that, no answer comes from a retracted edit."""
    statuses: tuple[Literal["queued", "running"], ...] = ("queued", "running")
    while True:
        page = yield from list_jobs(kind=["refit"], status=statuses, limit=1).read_page()
        if not page["items"]:
            return
        yield Pause(POLL_S)


def _follow(
    followed: FollowedT | str,
    read: Callable[[str], Steps[FollowedT]],
    has_ended: Callable[[FollowedT], bool],
    name: str,
    on_progress: Callable[[FollowedT], None] | None,
    timeout_s: float | None,
) -> Steps[FollowedT]:
    until = None if timeout_s is None else time.monotonic() + timeout_s
    state = (yield from read(followed)) if isinstance(followed, str) else followed
    while not has_ended(state):
        if until is not None and time.monotonic() >= until:
            raise TimedOut(f"{name} did not end within {timeout_s:g} s")
        yield Pause(POLL_S)
        state = yield from read(state["id"])
        if on_progress is not None:
            on_progress(state)
    return state


def _has_ended(work: Mapping[str, Any]) -> bool:
    return work["finished_at"] is not None
