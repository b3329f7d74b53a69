"""Failed attempts of a retrain: counted and spaced, with the reason in the job's row and log. A retrain takes minutes, and
endless attempts would keep a machine busy unnoticed.
"""

import contextlib
import time
from datetime import timedelta

from sqlalchemy.engine import Connection

from service.domain import cadence
from service.domain.errors import Refused, ServiceError, Unavailable
from service.editors.protocol import FitCancelled, FitFailed, Hooks
from service.lifecycle.cadence_inputs import read_retrain_history
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.lease import Lease
from service.store import jobs
from service.store.jobs import Job


def count_failure(context: LifecycleContext, lease: Lease, error: Exception) -> float | None:
    """Count an attempt of the running retrain as failed, and log the reason. Return the seconds until the next attempt, or None
    if there is none.

    There is none after too many attempts, and none where another attempt would end the same way. Raises Unavailable if the
    database is away: then nothing was counted.
    """
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain", "running", brief=True)
        if job is None:
            return None
        failures = job.failures + 1
        jobs.write(connection, job.id, failures=failures)
        if failures >= context.settings.attempts or isinstance(error, FitFailed | Refused):
            end_failed(connection, context, job, reason_of(error))
            return None
        now, pause_s = context.clock(), context.settings.pause_s * 2.0**job.failures
        message = f"attempt {failures} failed: {reason_of(error)}; the next one follows in {pause_s:g} s"
        jobs.append_to_log(connection, job.id, message, now)
        jobs.write(connection, job.id, retry_at=now + timedelta(seconds=pause_s), stage="waiting for the next attempt")
        return pause_s


def wait_to_publish(context: LifecycleContext, lease: Lease, error: Exception, hooks: Hooks) -> bool:
    """After the trained tensors could not be published, pause before the next try; return False if this was the last attempt.

    While the database is away nothing is counted, and the trained tensors are kept. Raises FitCancelled.
    """
    while True:
        try:
            pause_s = count_failure(context, lease, error)
        except Unavailable:
            _sleep(context, context.settings.pause_s, hooks)
            continue
        if pause_s is None:
            return False
        _sleep(context, pause_s, hooks)
        with contextlib.suppress(Unavailable), context.store.write() as connection:
            jobs.clear_retry(connection, "retrain")
        return True


def end_failed(connection: Connection, context: LifecycleContext, job: Job, error: str) -> None:
    """Fail a retrain with a reason, and log when an automatic retrain may follow."""
    now = context.clock()
    jobs.finish(connection, job.id, error=error, now=now)
    pause_s = cadence.retry_pause_s(read_retrain_history(connection).setbacks, context.settings.cadence)
    until = (now + timedelta(seconds=pause_s)).isoformat(timespec="seconds")
    jobs.append_to_log(connection, job.id, f"no other follows by itself before {until}", now)


def reason_of(error: Exception) -> str:
    """The reason of a failure in a sentence, without anybody's texts or paths."""
    if isinstance(error, ServiceError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"a file could not be read or written: {error.strerror}"
    return f"the fit ended with {type(error).__name__}"


def _sleep(context: LifecycleContext, pause_s: float, hooks: Hooks) -> None:
    """Wait. Raises FitCancelled if the retrain is cancelled or the worker stops meanwhile."""
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0:
        if hooks.is_cancelled():
            raise FitCancelled("the retrain was cancelled")
        time.sleep(min(left, max(context.settings.look_s, 0.01)))
