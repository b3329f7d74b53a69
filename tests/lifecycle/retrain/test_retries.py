"""Retrains that fail: why is said, attempts are spaced, what was trained is kept, and what was due is tried again."""

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
from service.domain.version import VersionKind
from service.lifecycle.settings import LifecycleSettings
from service.runtime.worker import Worker
from service.store import jobs
from tests.lifecycle.ledger import tensors_of, window_of
from tests.lifecycle.local_store import PATIENT, House, job_of, new_house, said, trainings

MANUAL = LifecycleSettings(cadence=replace(PATIENT, method="baft"), pause_s=0.0, look_s=0.0)
SPACED = replace(MANUAL, pause_s=10.0)
BY_ITSELF = LifecycleSettings(cadence=PATIENT, pause_s=0.0, look_s=0.0)


@dataclass
class MovedClock:
    """A clock that a test moves."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def clocked(house: House) -> MovedClock:
    """Give a house a clock that a test moves; it is ahead of whatever was done by the real one."""
    clock = MovedClock(house.parts.clock() + timedelta(days=1))
    use(house, house.ledger.locft, clock)
    return clock


def use(house: House, locft: Callable[..., object], clock: Callable[[], datetime] | None = None) -> None:
    """Let a house retrain by `locft` from now on."""
    editors = replace(house.parts.editors, locft=locft)  # type: ignore[arg-type]
    house.parts = replace(house.parts, editors=editors, clock=clock or house.parts.clock)
    house.worker = Worker(house.parts, alone=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[LifecycleSettings], House]]:
    made: list[House] = []

    def new(settings: LifecycleSettings) -> House:
        (tmp_path / str(len(made))).mkdir()
        made.append(new_house(tmp_path / str(len(made)), settings=settings))
        return made[-1]

    yield new
    for house in made:
        house.close()


def failing(house: House, error: Exception, times: int = 1_000) -> None:
    """Let so many of the next retrains fail, each after its training was begun."""
    left = [error] * times

    def locft(*given: object) -> object:
        if left:
            house.ledger.fits.append(("locft", ("broken",), given[2]))  # type: ignore[arg-type]
            raise left.pop()
        return house.ledger.locft(*given)  # type: ignore[arg-type]

    use(house, locft)


def block(house: House) -> Path:
    """Put a file where the folder of checkpoints was, so that the disk takes none; where the folder is meanwhile."""
    aside = house.folder.with_name("aside")
    house.folder.rename(aside)
    house.folder.write_text("")
    return aside


def unblock(house: House, aside: Path) -> None:
    house.folder.unlink()
    aside.rename(house.folder)


# Nothing that was trained is thrown away


def test_a_retrain_whose_checkpoint_cannot_be_written_trains_once_and_ends_with_its_reason(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(MANUAL)
    made = house.live(("a", "1"))
    block(house)

    job = house.retrain()
    house.worker.drain()

    ended = job_of(house, job)
    assert (trainings(house), ended.status, ended.failures) == (1, "failed", 3)
    assert "checkpoint could not be written" in str(ended.error)
    assert "attempt 1 failed: The checkpoint" in said(ended) and "no other follows by itself before" in said(ended)
    assert house.statuses(made) == [EditStatus.APPLIED] and house.says("a") == "1"


def test_a_retrain_is_published_as_it_was_trained_once_there_is_room_on_the_disk(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(MANUAL)
    made = house.live(("a", "1"))
    aside, save = block(house), house.parts.overlays.save

    def save_with_room_at_last(overlay):  # type: ignore[no-untyped-def]
        house.parts.overlays.save = make_room  # type: ignore[method-assign]
        return save(overlay)

    def make_room(overlay):  # type: ignore[no-untyped-def]
        unblock(house, aside)
        house.parts.overlays.save = save  # type: ignore[method-assign]
        return save(overlay)

    house.parts.overlays.save = save_with_room_at_last  # type: ignore[method-assign]
    job = house.retrain()
    house.worker.drain()

    ended = job_of(house, job)
    assert (trainings(house), ended.status, ended.failures, ended.retry_at) == (1, "done", 1, None)
    assert house.statuses(made) == [EditStatus.CONSOLIDATED]


def test_while_the_database_is_away_what_was_trained_waits_for_it(make: Callable[[LifecycleSettings], House]) -> None:
    house = make(MANUAL)
    house.live(("a", "1"))
    save, write = house.parts.overlays.save, house.store.write
    away = [True] * 5

    @contextmanager
    def write_if_there() -> Iterator[Connection]:
        if away:
            away.pop()
            raise Unavailable("The database cannot be reached.")
        with write() as connection:
            yield connection

    def save_and_lose_the_database(overlay):  # type: ignore[no-untyped-def]
        house.store.write = write_if_there  # type: ignore[method-assign]
        return save(overlay)

    house.parts.overlays.save = save_and_lose_the_database  # type: ignore[method-assign]
    job = house.retrain()
    house.worker.drain()

    assert (trainings(house), job_of(house, job).status, away) == (1, "done", [])


def test_a_retrain_that_waits_to_publish_is_cancelled_at_once(make: Callable[[LifecycleSettings], House]) -> None:
    house = make(replace(SPACED, pause_s=1_000.0))
    house.live(("a", "1"))
    block(house)
    save, job = house.parts.overlays.save, house.retrain()

    def save_and_cancel(overlay):  # type: ignore[no-untyped-def]
        try:
            return save(overlay)
        finally:
            with house.store.write() as connection:
                jobs.note(connection, job.id, cancel_asked_at=house.parts.clock(), cancelled_by="bob")

    house.parts.overlays.save = save_and_cancel  # type: ignore[method-assign]
    house.worker.drain()

    assert job_of(house, job).status == "cancelled"


# Attempts are spaced


def test_the_attempts_of_a_retrain_are_spaced_and_edits_are_applied_between_them(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(SPACED)
    clock = clocked(house)
    house.live(("a", "1"))
    failing(house, OSError(28, "No space left on device", "/somewhere"), times=2)
    job = house.retrain()
    house.worker.drain()

    waiting = job_of(house, job)
    assert (waiting.status, waiting.failures, waiting.retry_at) == ("running", 1, clock.now + timedelta(seconds=10))
    assert "attempt 1 failed: a file could not be read or written: No space left on device" in said(waiting)
    assert "/somewhere" not in said(waiting)
    (b,) = house.live(("b", "2"))
    assert (house.statuses([b]), trainings(house)) == ([EditStatus.APPLIED], 1)

    clock.passes(10)
    house.worker.drain()
    assert job_of(house, job).retry_at == clock.now + timedelta(seconds=20)
    clock.passes(20)
    house.worker.drain()

    assert (trainings(house), job_of(house, job).status, job_of(house, job).retry_at) == (3, "done", None)


def test_a_retrain_that_waits_for_its_next_attempt_is_cancelled_at_once(make: Callable[[LifecycleSettings], House]) -> None:
    house = make(SPACED)
    house.live(("a", "1"))
    failing(house, RuntimeError("out of memory"))
    job = house.retrain()
    house.worker.drain()

    cancel_job(house.store, job.id, author="bob")
    house.worker.drain()

    ended = job_of(house, job)
    assert (ended.status, ended.retry_at, trainings(house)) == ("cancelled", None, 1)


def test_another_process_waits_for_the_next_attempt_too(make: Callable[[LifecycleSettings], House]) -> None:
    house = make(SPACED)
    house.live(("a", "1"))
    failing(house, RuntimeError("out of memory"))
    house.retrain()
    house.worker.drain()

    again = House(house.url, house.folder, ledger=house.ledger, settings=house.settings)
    again.worker.drain()

    assert trainings(again) == 1
    again.close()


def test_an_edit_that_cannot_be_published_now_says_why_while_it_waits(
    make: Callable[[LifecycleSettings], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(MANUAL)
    house.live(("a", "1"))

    def refuse(_: object) -> None:
        raise Unavailable("The checkpoint could not be written; see that the data folder has room.")

    (b,) = house.post(("b", "2"))
    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(house.parts.overlays, "save", refuse)
        house.worker.drain()
    with house.store.read() as connection:
        waiting = jobs.active(connection, "apply", "running")
    house.worker.drain()

    assert waiting is not None and "checkpoint could not be written" in str(waiting.stage)
    assert house.statuses([b]) == [EditStatus.APPLIED]


# What was due is tried again


def taken_back(house: House) -> None:
    """Put two edits into the tensors and take one back, of which a major retrain has to remove the trace."""
    a, _ = house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.worker.drain()
    house.retract(a)


def test_after_a_failure_that_passes_the_trace_of_a_retraction_leaves_the_tensors_all_the_same(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(BY_ITSELF)
    clock = clocked(house)
    taken_back(house)
    failing(house, RuntimeError("out of memory"), times=6)
    tried = []
    for pause in (59, 1, 119, 1):
        house.worker.drain()
        tried.append(trainings(house))
        clock.passes(pause)
    house.worker.drain()

    assert tried == [1 + 3, 1 + 3, 1 + 6, 1 + 6]
    assert (house.head.kind, house.head.minors) == (VersionKind.LOCFT, 0)
    assert "prompt:a" not in tensors_of(house.parts.follower.current.overlay)
    done = list_jobs(house.store, limit=1, kind="retrain")[0]
    assert done.reason == "a retracted edit is still in the tensors; retrains before this one that published nothing: 2"


def test_a_refused_retrain_is_not_made_again_by_a_stream_of_edits_but_by_time(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(replace(BY_ITSELF, cadence=replace(PATIENT, soft=2)))
    clock = clocked(house)
    house.ledger.canary = lambda size: 1.0 if size else 0.1  # so low without a window that it is not accepted
    jobs_after = []
    for pause in (59, 1, 119, 1):
        house.live(*((f"k{number}", str(clock.now)) for number in range(4)))
        jobs_after.append([job.status for job in list_jobs(house.store, limit=9, kind="retrain")])
        clock.passes(pause)

    assert jobs_after == [["failed"]] * 2 + [["failed"] * 2] * 2


def test_a_cancelled_retrain_comes_again_by_itself_only_to_take_something_back(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(BY_ITSELF)
    clock = clocked(house)
    taken_back(house)
    house.worker._hold_lease()
    while house.worker._advance():
        pass
    cancel_job(house.store, list_jobs(house.store, limit=1, kind="retrain")[0].id, author="bob", now=clock.now)
    house.worker.drain()
    at_once = [job.status for job in list_jobs(house.store, limit=9, kind="retrain")]
    clock.passes(60)
    house.worker.drain()

    assert at_once == ["cancelled", "done"]
    assert [job.status for job in list_jobs(house.store, limit=9, kind="retrain")] == ["done", "cancelled", "done"]


# The same bytes


def test_the_tensors_of_a_retrain_do_not_tell_that_an_attempt_failed_nor_what_was_in_its_snapshot(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house, calm = make(SPACED), make(SPACED)
    clock = clocked(house)
    for one in (house, calm):
        one.live(("a", "1"), ("b", "2"))
    (c,) = house.live(("c", "3"))
    failing(house, RuntimeError("out of memory"), times=1)
    house.retrain()
    house.worker.drain()
    house.retract(c)
    clock.passes(10)
    calm.retrain()
    for one in (house, calm):
        one.worker.drain()

    assert (trainings(house), trainings(calm)) == (2, 1)
    assert house.ledger.fits[-1] == calm.ledger.fits[-1]
    assert house.head.digest == calm.head.digest


def test_a_retraction_whose_refits_failed_takes_effect_by_itself_a_while_later(
    make: Callable[[LifecycleSettings], House],
) -> None:
    house = make(MANUAL)
    clock = clocked(house)
    a, b = house.live(("a", "1"), ("b", "2"))
    house.ledger.breaks = {"2"}  # what a refit without the first would be given
    house.retract(a)
    house.worker.drain()
    assert "prompt:a" in window_of(house.parts.follower.current.overlay)
    house.ledger.breaks = set()

    house.worker.drain()
    assert "prompt:a" in window_of(house.parts.follower.current.overlay)
    clock.passes(60)
    house.worker.drain()

    assert house.statuses([a, b]) == [EditStatus.RETRACTED, EditStatus.APPLIED]
    assert "prompt:a" not in window_of(house.parts.follower.current.overlay)


def test_a_retrain_that_finds_nothing_left_to_train_on_publishes_nothing(make: Callable[[LifecycleSettings], House]) -> None:
    house = make(MANUAL)
    house.live(("a", "1"))
    asked = house.retrain()
    house.roll_back(0)
    head = house.head.number

    house.worker.drain()

    assert (job_of(house, asked).status, house.head.number) == ("failed", head)
    assert job_of(house, asked).error == "nothing is left to train on, and nothing to undo"
