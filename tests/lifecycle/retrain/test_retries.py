"""Retrains that fail: the reason is logged, attempts are spaced, trained tensors are kept, and due work is tried again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from service.background.jobs import cancel_job, list_jobs
from service.domain.edit import EditStatus
from service.domain.errors import Unavailable
from service.lifecycle.editors import EditorsByPart
from service.lifecycle.settings import LifecycleSettings
from service.runtime.worker import Worker
from service.store import jobs
from tests.lifecycle.ledger import ConsolidatingFits, tensors_of, window_of
from tests.lifecycle.local_service import PATIENT, LocalService, count_trainings, job_of, log_text, new_local_service

MANUAL = LifecycleSettings(cadence=replace(PATIENT, automatic=False), pause_s=0.0, look_s=0.0)
SPACED = replace(MANUAL, pause_s=10.0)
AUTOMATIC = LifecycleSettings(cadence=PATIENT, pause_s=0.0, look_s=0.0)


@dataclass
class ManualClock:
    """A clock that a test moves."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def set_manual_clock(local: LocalService) -> ManualClock:
    """Give a service a clock that a test moves. The clock is a day ahead of the real one."""
    clock = ManualClock(local.context.clock() + timedelta(days=1))
    replace_retrain(local, local.ledger.locft, clock)
    return clock


def replace_retrain(local: LocalService, locft: Callable[..., object], clock: Callable[[], datetime] | None = None) -> None:
    """Make a service retrain by `locft`, with another clock if one is given."""
    editors = replace(local.context.editors, consolidating={"locft": ConsolidatingFits(locft)})  # type: ignore[arg-type]
    local.context = replace(local.context, editors_by_part=EditorsByPart(editors), clock=clock or local.context.clock)
    local.worker = Worker(local.context, is_only_server=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[LifecycleSettings], LocalService]]:
    services: list[LocalService] = []

    def new(settings: LifecycleSettings) -> LocalService:
        (tmp_path / str(len(services))).mkdir()
        services.append(new_local_service(tmp_path / str(len(services)), settings=settings))
        return services[-1]

    yield new
    for local in services:
        local.close()


def fail_retrains(local: LocalService, error: Exception, times: int = 1_000) -> None:
    """Make the next `times` retrains fail, each after its training has begun."""
    errors = [error] * times

    def locft(*arguments: object) -> object:
        if errors:
            local.ledger.fits.append(("locft", ("broken",), arguments[2]))  # type: ignore[arg-type]
            raise errors.pop()
        return local.ledger.locft(*arguments)  # type: ignore[arg-type]

    replace_retrain(local, locft)


def block_checkpoints(local: LocalService) -> Path:
    """Put a file in the place of the checkpoint folder, so that no checkpoint can be written. Returns the folder's new path."""
    aside = local.folder.with_name("aside")
    local.folder.rename(aside)
    local.folder.write_text("")
    return aside


def unblock_checkpoints(local: LocalService, aside: Path) -> None:
    local.folder.unlink()
    aside.rename(local.folder)


# Trained tensors are kept


def test_a_retrain_whose_checkpoint_cannot_be_written_trains_once_and_fails(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(MANUAL)
    edit_ids = local.live(("a", "1"))
    block_checkpoints(local)

    job = local.retrain()
    local.worker.drain()

    final = job_of(local, job)
    assert (count_trainings(local), final.status, final.failures) == (1, "failed", 3)
    assert "checkpoint could not be written" in str(final.error)
    assert "attempt 1 failed: The checkpoint" in log_text(final) and "no other follows by itself before" in log_text(final)
    assert local.statuses(edit_ids) == [EditStatus.APPLIED] and local.says("a") == "1"


def test_a_trained_retrain_is_published_once_the_disk_has_room(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(MANUAL)
    edit_ids = local.live(("a", "1"))
    aside, save = block_checkpoints(local), local.context.checkpoints.save

    def save_without_room(overlay):  # type: ignore[no-untyped-def]
        local.context.checkpoints.save = make_room  # type: ignore[method-assign]
        return save(overlay)

    def make_room(overlay):  # type: ignore[no-untyped-def]
        unblock_checkpoints(local, aside)
        local.context.checkpoints.save = save  # type: ignore[method-assign]
        return save(overlay)

    local.context.checkpoints.save = save_without_room  # type: ignore[method-assign]
    job = local.retrain()
    local.worker.drain()

    final = job_of(local, job)
    assert (count_trainings(local), final.status, final.failures, final.retry_at) == (1, "done", 1, None)
    assert local.statuses(edit_ids) == [EditStatus.CONSOLIDATED]


def test_trained_tensors_are_kept_while_the_database_cannot_be_reached(make: Callable[[LifecycleSettings], LocalService]) -> None:
    local = make(MANUAL)
    local.live(("a", "1"))
    save, write = local.context.checkpoints.save, local.store.write
    outages = [True] * 5

    @contextmanager
    def write_after_outages() -> Iterator[Connection]:
        if outages:
            outages.pop()
            raise Unavailable("The database cannot be reached.")
        with write() as connection:
            yield connection

    def save_and_lose_the_database(overlay):  # type: ignore[no-untyped-def]
        local.store.write = write_after_outages  # type: ignore[method-assign]
        return save(overlay)

    local.context.checkpoints.save = save_and_lose_the_database  # type: ignore[method-assign]
    job = local.retrain()
    local.worker.drain()

    assert (count_trainings(local), job_of(local, job).status, outages) == (1, "done", [])


def test_a_retrain_that_waits_to_publish_is_cancelled_at_once(make: Callable[[LifecycleSettings], LocalService]) -> None:
    local = make(replace(SPACED, pause_s=1_000.0))
    local.live(("a", "1"))
    block_checkpoints(local)
    save, job = local.context.checkpoints.save, local.retrain()

    def save_and_cancel(overlay):  # type: ignore[no-untyped-def]
        try:
            return save(overlay)
        finally:
            with local.store.write() as connection:
                jobs.write(connection, job.id, cancel_asked_at=local.context.clock(), cancelled_by="bob")

    local.context.checkpoints.save = save_and_cancel  # type: ignore[method-assign]
    local.worker.drain()

    assert job_of(local, job).status == "cancelled"


# Attempts are spaced


def test_the_attempts_of_a_retrain_are_spaced_and_edits_are_applied_between_them(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(SPACED)
    clock = set_manual_clock(local)
    local.live(("a", "1"))
    fail_retrains(local, OSError(28, "No space left on device", "/somewhere"), times=2)
    job = local.retrain()
    local.worker.drain()

    waiting = job_of(local, job)
    assert (waiting.status, waiting.failures, waiting.retry_at) == ("running", 1, clock.now + timedelta(seconds=10))
    assert "attempt 1 failed: a file could not be read or written: No space left on device" in log_text(waiting)
    assert "/somewhere" not in log_text(waiting)
    (b,) = local.live(("b", "2"))
    assert (local.statuses([b]), count_trainings(local)) == ([EditStatus.APPLIED], 1)

    clock.advance(10)
    local.worker.drain()
    assert job_of(local, job).retry_at == clock.now + timedelta(seconds=20)
    clock.advance(20)
    local.worker.drain()

    assert (count_trainings(local), job_of(local, job).status, job_of(local, job).retry_at) == (3, "done", None)


def test_a_retrain_that_waits_for_its_next_attempt_is_cancelled_at_once(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(SPACED)
    local.live(("a", "1"))
    fail_retrains(local, RuntimeError("out of memory"))
    job = local.retrain()
    local.worker.drain()

    cancel_job(local.store, job.id, author="bob")
    local.worker.drain()

    final = job_of(local, job)
    assert (final.status, final.retry_at, count_trainings(local)) == ("cancelled", None, 1)


def test_another_process_waits_for_the_next_attempt_too(make: Callable[[LifecycleSettings], LocalService]) -> None:
    local = make(SPACED)
    local.live(("a", "1"))
    fail_retrains(local, RuntimeError("out of memory"))
    local.retrain()
    local.worker.drain()

    restarted = LocalService(local.url, local.folder, ledger=local.ledger, settings=local.settings)
    restarted.worker.drain()

    assert count_trainings(restarted) == 1
    restarted.close()


def test_a_waiting_edit_that_cannot_be_published_now_says_why(
    make: Callable[[LifecycleSettings], LocalService], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make(MANUAL)
    local.live(("a", "1"))

    def refuse(_: object) -> None:
        raise Unavailable("The checkpoint could not be written; see that the data folder has room.")

    (b,) = local.post(("b", "2"))
    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(local.context.checkpoints, "save", refuse)
        local.worker.drain()
    with local.store.read() as connection:
        waiting = jobs.find_active(connection, "apply", "running")
    local.worker.drain()

    assert waiting is not None and "checkpoint could not be written" in str(waiting.stage)
    assert local.statuses([b]) == [EditStatus.APPLIED]


# Due work is tried again


def retract_consolidated_edit(local: LocalService) -> None:
    """Consolidate two edits and retract one of them, so that a major retrain is due."""
    a, _ = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.worker.drain()
    local.retract(a)


def test_after_a_passing_failure_a_retracted_edit_still_leaves_the_tensors(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(AUTOMATIC)
    clock = set_manual_clock(local)
    retract_consolidated_edit(local)
    fail_retrains(local, RuntimeError("out of memory"), times=6)
    training_counts = []
    for pause in (59, 1, 119, 1):
        local.worker.drain()
        training_counts.append(count_trainings(local))
        clock.advance(pause)
    local.worker.drain()

    assert training_counts == [1 + 3, 1 + 3, 1 + 6, 1 + 6]
    assert (local.head.kind, local.head.minors) == ("locft", 0)
    assert "prompt:a" not in tensors_of(local.context.follower.current.overlay)
    retrain = list_jobs(local.store, limit=1, kind="retrain")[0]
    assert retrain.reason == "a retracted edit is still in the tensors; retrains before this one that published nothing: 2"


def test_a_refused_retrain_is_repeated_after_a_pause_and_not_for_new_edits(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(replace(AUTOMATIC, cadence=replace(PATIENT, soft=2)))
    clock = set_manual_clock(local)
    local.ledger.far = lambda size: 1.0 if size else 0.1  # without a window too little is kept for acceptance
    statuses_after = []
    for pause in (59, 1, 119, 1):
        local.live(*((f"k{number}", str(clock.now)) for number in range(4)))
        statuses_after.append([job.status for job in list_jobs(local.store, limit=9, kind="retrain")])
        clock.advance(pause)

    assert statuses_after == [["failed"]] * 2 + [["failed"] * 2] * 2


def test_a_cancelled_retrain_is_repeated_automatically_only_for_a_retraction(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(AUTOMATIC)
    clock = set_manual_clock(local)
    retract_consolidated_edit(local)
    local.worker._hold_lease()
    while local.worker._advance():
        pass
    cancel_job(local.store, list_jobs(local.store, limit=1, kind="retrain")[0].id, author="bob", now=clock.now)
    local.worker.drain()
    immediate_statuses = [job.status for job in list_jobs(local.store, limit=9, kind="retrain")]
    clock.advance(60)
    local.worker.drain()

    assert immediate_statuses == ["cancelled", "done"]
    assert [job.status for job in list_jobs(local.store, limit=9, kind="retrain")] == ["done", "cancelled", "done"]


# The same bytes


def test_failed_attempts_and_older_snapshots_do_not_change_the_tensors_of_a_retrain(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local, undisturbed = make(SPACED), make(SPACED)
    clock = set_manual_clock(local)
    for service in (local, undisturbed):
        service.live(("a", "1"), ("b", "2"))
    (c,) = local.live(("c", "3"))
    fail_retrains(local, RuntimeError("out of memory"), times=1)
    local.retrain()
    local.worker.drain()
    local.retract(c)
    clock.advance(10)
    undisturbed.retrain()
    for service in (local, undisturbed):
        service.worker.drain()

    assert (count_trainings(local), count_trainings(undisturbed)) == (2, 1)
    assert local.ledger.fits[-1] == undisturbed.ledger.fits[-1]
    assert local.head.digest == undisturbed.head.digest


def test_after_failed_refits_a_retraction_is_tried_again_later(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(MANUAL)
    clock = set_manual_clock(local)
    a, b = local.live(("a", "1"), ("b", "2"))
    local.ledger.failing_targets = {"2"}  # the only target of a refit without the first edit
    local.retract(a)
    local.worker.drain()
    assert "prompt:a" in window_of(local.context.follower.current.overlay)
    local.ledger.failing_targets = set()

    local.worker.drain()
    assert "prompt:a" in window_of(local.context.follower.current.overlay)
    clock.advance(60)
    local.worker.drain()

    assert local.statuses([a, b]) == [EditStatus.RETRACTED, EditStatus.APPLIED]
    assert "prompt:a" not in window_of(local.context.follower.current.overlay)


def test_a_retrain_with_nothing_left_to_train_publishes_nothing(
    make: Callable[[LifecycleSettings], LocalService],
) -> None:
    local = make(MANUAL)
    local.live(("a", "1"))
    job = local.retrain()
    local.roll_back(0)
    head = local.head.number

    local.worker.drain()

    assert (job_of(local, job).status, local.head.number) == ("failed", head)
    assert job_of(local, job).error == "nothing is left to train on, and nothing to undo"
