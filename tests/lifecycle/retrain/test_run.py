"""Minor and major retrains, their cancellation, their figures, and changes of the head meanwhile."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from service.background.jobs import cancel_job, estimate_seconds_left, list_jobs
from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, NotFound
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs, measurements
from tests.lifecycle.ledger import tensors_of, window_of
from tests.lifecycle.local_service import (
    MANUAL,
    PATIENT,
    Crash,
    LocalService,
    job_of,
    log_text,
    new_local_service,
    once,
    retrained,
)

S = EditStatus
WATCHFUL = LifecycleSettings(cadence=MANUAL, look_s=0.0)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=WATCHFUL)
    yield made
    made.close()


# Minor and major


def test_the_first_retrain_is_major_and_the_next_is_minor_on_its_tensors(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    first = retrained(local)
    c, d = local.live(("c", "3"), ("d", "4"))

    second = retrained(local)

    assert (first.mode, second.mode) == ("major", "minor")
    assert local.ledger.starts == [{}, {"prompt:a": "1", "prompt:b": "2"}]
    assert local.statuses([a, b, c, d]) == [S.CONSOLIDATED] * 4
    assert local.live_set.window == () and local.head.window == 0
    assert local.head.minors == 1


def test_every_version_records_the_retrains_behind_its_tensors(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local, "major")
    major = local.head
    local.live(("b", "2"))
    retrained(local, "minor")
    (c,) = local.live(("c", "3"))
    local.retract(c)
    local.worker.drain()
    assert (local.head.minors, local.head.major_at) == (1, major.major_at)

    local.roll_back(major.number)

    assert major.major_at == major.created_at
    assert (local.head.minors, local.head.major_at) == (0, major.major_at)
    local.live(("e", "5"))
    assert (local.head.minors, local.head.major_at) == (0, major.major_at)
    local.roll_back(0)
    assert (local.head.minors, local.head.major_at) == (0, None)


def test_without_tensors_a_minor_retrain_becomes_major(local: LocalService) -> None:
    local.live(("a", "1"))

    assert retrained(local, "minor").mode == "major"


def test_after_several_minor_retrains_a_major_one_follows_and_reports_their_drift(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=replace(PATIENT, minors=2)))
    modes = []
    for name in "abcd":
        local.live((name, "1"))
        modes.append(retrained(local).mode)

    assert modes == ["major", "minor", "minor", "major"]
    drift = local.head.scores["drift"]
    assert drift["minors"] == 2
    assert (drift["from_head"], drift["from_base"], drift["head_from_base"]) == (1.0, 4.0, 3.0)
    assert drift["far"] == {"minor": 1.0, "major": 1.0}
    local.close()


def test_a_minor_retrain_keeps_a_tombstone_and_makes_a_superseded_edit_a_ghost(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    retrained(local)
    local.retract(a)
    (newer,) = local.live(("b", "3"))
    assert local.statuses([a, b, newer]) == [S.RETRACTED, S.SUPERSEDED, S.APPLIED]

    assert retrained(local, "minor").mode == "minor"

    roles = {item.edit_id: (str(item.role), str(item.carrier), item.is_in_tensors) for item in local.live_set.items}
    assert roles[a.id] == ("tombstone", "window", True)
    assert roles[b.id] == ("ghost", "tensors", True)
    assert roles[newer.id] == ("live", "tensors", True)
    assert (local.says("a"), local.says("b")) == ("base of prompt:a", "3")
    assert not local.live_set.needs_refit


def test_retracting_an_edit_of_a_minor_retrain_can_restore_its_predecessor(local: LocalService) -> None:
    (older,) = local.live(("a", "1"))
    retrained(local)
    (newer,) = local.live(("a", "2"))
    retrained(local, "minor")

    local.retract(newer, restore_previous=True)
    local.worker.drain()

    assert local.says("a") == "1"
    assert local.statuses([older, newer]) == [S.APPLIED, S.RETRACTED]


def test_a_major_retrain_after_minor_ones_leaves_no_trace_of_retracted_edits(local: LocalService, tmp_path: Path) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    retrained(local, "major")
    local.live(("c", "3"))
    retrained(local, "minor")
    local.retract(a)
    local.worker.drain()
    assert "prompt:a" in tensors_of(local.context.follower.current.overlay)

    retrained(local, "major")

    (tmp_path / "other").mkdir()
    other = new_local_service(tmp_path / "other", settings=WATCHFUL)
    other.live(("b", "2"), ("c", "3"))
    retrained(other, "major")
    assert local.head.digest == other.head.digest
    assert local.ledger.fits[-1] == other.ledger.fits[-1]
    other.close()


def test_retracting_a_consolidated_edit_makes_a_major_retrain_due(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    a, _ = local.live(("a", "1"), ("b", "2"))
    retrained(local)
    local.live(("c", "3"))

    local.retract(a)
    local.worker.drain()

    assert (local.head.kind, local.head.minors) == ("locft", 0)
    assert "prompt:a" not in tensors_of(local.context.follower.current.overlay)
    local.close()


def test_a_minor_retrain_becomes_major_if_the_location_setting_changed(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local)
    local.live(("b", "2"))
    local.ledger.location_moved = True

    job = retrained(local, "minor")

    assert (job.status, job.mode) == ("done", "major")
    assert "cannot start from the head's tensors" in log_text(job)


def test_a_minor_retrain_begins_again_if_the_heads_tensors_change(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local)
    made = local.live(("b", "2"))
    windowed = local.head.number
    retrained(local, "minor")
    local.live(("c", "3"))
    local.retrain("minor")
    local.ledger.during_fit = once(lambda: local.roll_back(windowed))  # type: ignore[assignment]  # the same edits, other tensors

    local.worker.drain()

    assert local.ledger.starts[-2:] == [{"prompt:a": "1", "prompt:b": "2"}, {"prompt:a": "1"}]
    assert local.statuses(made) == [S.CONSOLIDATED]
    assert local.head.minors == 1


def test_edits_are_applied_and_answered_while_either_retrain_runs(local: LocalService) -> None:
    local.live(("a", "1"))
    seen = []

    def meanwhile(name: str) -> None:
        local.post((name, "9"))
        local.worker._advance()
        seen.append((local.says(name), local.edit_by(name).status))

    for mode, name in (("major", "x"), ("minor", "y")):
        local.retrain(mode)  # type: ignore[arg-type]
        local.ledger.during_fit = once(lambda name=name: meanwhile(name))  # type: ignore[assignment,misc]
        local.worker.drain()

    assert seen == [("9", S.APPLIED)] * 2
    assert tensors_of(local.context.follower.current.overlay) == {"prompt:a": "1", "prompt:x": "9"}
    assert window_of(local.context.follower.current.overlay) == {"prompt:y": "9"}


def test_a_retrain_never_leaves_a_longer_window_than_the_bound(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=3, automatic=False)))
    made = local.live(("a", "1"), ("b", "2"), ("c", "3"))
    retrained(local, "major")
    made += local.live(("d", "4"))
    local.ledger.not_taken["locft"] = {"1", "2", "3", "4"}
    head = local.head.number

    job = retrained(local, "major")

    assert (job.status, local.head.number) == ("failed", head)
    assert "window" in str(job.error)
    assert [local.says(name) for name in "abcd"] == ["1", "2", "3", "4"]
    local.close()


def test_a_retrain_takes_another_snapshot_if_its_new_window_would_be_too_long(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=3, automatic=False)))
    made = local.live(("a", "1"))
    local.ledger.not_taken["locft"] = {"1"}

    def meanwhile() -> None:
        local.post(("x", "9"), ("y", "9"))
        local.worker._advance()
        retract_and_post()

    def retract_and_post() -> None:
        local.retract(local.edit_by("a"))
        local.worker._advance()
        local.post(("z", "9"))
        local.worker._advance()

    local.retrain("major")
    local.ledger.during_fit = once(meanwhile)  # type: ignore[assignment]
    local.worker.drain()

    assert local.statuses(made) == [S.RETRACTED]
    assert all(version.window <= 3 for version in local.versions())
    assert tensors_of(local.context.follower.current.overlay) == {"prompt:x": "9", "prompt:y": "9", "prompt:z": "9"}
    local.close()


def test_asking_for_a_major_retrain_makes_the_waiting_minor_one_major(local: LocalService) -> None:
    local.live(("a", "1"))
    waiting = local.retrain("minor")

    assert local.retrain("major").id == waiting.id
    assert job_of(local, waiting).mode == "major"
    assert local.retrain("minor").mode == "major"


# Crashes


def test_a_minor_retrain_left_by_a_dead_worker_is_repeated_exactly(local: LocalService) -> None:
    def die() -> None:
        raise Crash

    local.live(("a", "1"))
    retrained(local)
    local.live(("b", "2"))
    job = local.retrain("minor")
    local.ledger.during_fit = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    local.post(("c", "3"))
    local = local.again()
    local.worker.drain()

    first, again = [fit for fit in local.ledger.fits if fit[0] == "locft"][1:]
    assert first == again and local.ledger.starts[1] == local.ledger.starts[2]
    done = job_of(local, job)
    assert done.status == "done" and "taken up again" in log_text(done)
    local.close()


# Cancelling


def test_a_queued_retrain_is_cancelled_at_once(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()

    ended = cancel_job(local.store, job.id, author="bob")

    assert (ended.status, ended.cancelled_by, ended.error) == ("cancelled", "bob", "cancelled by bob")
    local.worker.drain()
    assert local.head.kind == "baft"
    assert "retrain.cancelled" in local.event_types()


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_a_running_retrain_is_cancelled_at_its_next_step_and_the_head_stays(local: LocalService, mode: str) -> None:
    local.live(("a", "1"))
    retrained(local)
    made = local.live(("b", "2"))
    head = local.head
    job = local.retrain(mode)  # type: ignore[arg-type]
    asked = []
    local.ledger.during_fit = once(lambda: asked.append(cancel_job(local.store, job.id, author="bob")))  # type: ignore[assignment]

    local.worker.drain()

    ended = job_of(local, job)
    assert asked[0].is_active
    assert (ended.status, ended.version, ended.cancelled_by) == ("cancelled", None, "bob")
    assert local.head == head and local.statuses(made) == [S.APPLIED]
    assert "bob asked" in log_text(ended) and ended.finished_at is not None


def test_a_retrain_cancelled_in_its_last_moment_does_not_publish(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()
    local.context.checkpoints.save = _then(local.context.checkpoints.save, lambda: cancel_job(local.store, job.id, author="bob"))  # type: ignore[method-assign]

    local.worker.drain()

    assert job_of(local, job).status == "cancelled"
    assert local.head.kind == "baft"


def _then(work, after):  # type: ignore[no-untyped-def]
    left = [after]

    def both(*given):  # type: ignore[no-untyped-def]
        found = work(*given)
        if left:
            left.pop()()
        return found

    return both


def test_a_cancelled_retrain_is_not_repeated_automatically_without_new_edits(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=9, retry_s=1e-6)))
    local.post(("a", "1"), ("b", "2"))
    local.worker._hold_lease()
    local.worker._advance()
    local.worker._advance()
    with local.store.read() as connection:
        queued = jobs.find_active(connection, "retrain", "queued")
    assert queued is not None
    cancel_job(local.store, queued.id, author="bob")

    local.live(("c", "3"), ("d", "4"), ("e", "5"))
    assert [job.id for job in list_jobs(local.store, limit=9, kind="retrain")] == [queued.id]
    local.live(("f", "6"))

    assert [job.status for job in list_jobs(local.store, limit=9, kind="retrain")] == ["done", "cancelled"]
    local.close()


def test_the_cancelled_retrain_of_a_dead_worker_ends_at_its_next_claim(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()

    def die() -> None:
        raise Crash

    local.ledger.during_fit = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    cancel_job(local.store, job.id, author="bob")
    local = local.again()
    local.worker.drain()

    assert job_of(local, job).status == "cancelled"
    assert len([fit for fit in local.ledger.fits if fit[0] == "locft"]) == 1
    local.close()


def test_what_cancelling_refuses(local: LocalService) -> None:
    local.live(("a", "1"))
    done = retrained(local)
    (applied,) = list_jobs(local.store, limit=1, kind="apply")

    with pytest.raises(NotFound):
        cancel_job(local.store, "none", author="bob")
    with pytest.raises(Conflict, match="over"):
        cancel_job(local.store, done.id, author="bob")
    with pytest.raises(Conflict, match="apply"):
        cancel_job(local.store, applied.id, author="bob")


def test_asking_twice_to_cancel_is_asking_once(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()

    first = cancel_job(local.store, job.id, author="bob")

    assert cancel_job(local.store, job.id, author="eve") == first


# Jobs


def test_jobs_are_listed_newest_first_page_by_page_and_by_kind_and_status(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    retrained(local)
    local.retrain("major")

    everything = list_jobs(local.store, limit=9)
    first = list_jobs(local.store, limit=2)

    assert [job.kind for job in everything] == ["retrain", "retrain", "apply", "apply"]
    assert first + list_jobs(local.store, limit=9, before=first[-1].id) == everything
    assert [job.status for job in list_jobs(local.store, limit=9, kind="retrain", status="queued")] == ["queued"]
    with pytest.raises(NotFound):
        list_jobs(local.store, limit=1, before="none")


def test_the_log_of_a_retrain_tells_its_course(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))

    done = retrained(local)

    messages = [line["message"] for line in done.log]
    assert messages[0] == "asked for by ann"
    assert messages[1] == "major retrain by LocFT-BF: snapshot of 2 edits, of version 2"
    assert any(message.startswith("trained on 2 edits: retention 1.000") for message in messages)
    assert messages[-1] == "published as version 3"


def test_a_long_log_keeps_its_beginning_and_its_end(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()
    with local.store.write() as connection:
        for number in range(200):
            jobs.append_to_log(connection, job.id, str(number), local.context.clock())

    log = [line["message"] for line in job_of(local, job).log]
    assert len(log) == 100 and log[1] == "0" and log[-1] == "199"


def test_the_time_left_follows_from_the_share_done(local: LocalService) -> None:
    local.live(("a", "1"))
    queued = local.retrain()
    begun = replace(queued, status="running", started_at=queued.created_at, progress=0.25)

    assert estimate_seconds_left(begun, queued.created_at + timedelta(seconds=10)) == 30.0
    assert estimate_seconds_left(replace(begun, progress=0.0), queued.created_at) is None
    assert estimate_seconds_left(queued, queued.created_at) is None


# Measurements


def test_a_publication_stores_the_figures_of_its_acceptance(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))

    with local.store.read() as connection:
        found = measurements.read_latest(connection, local.head.number)

    assert {name: (one.score, one.n, one.source) for name, one in found.items()} == {
        "retention": (1.0, 2, "gate"),
        "far": (1.0, 100, "gate"),
    }


def test_of_the_measurements_of_a_version_only_the_last_are_kept(local: LocalService) -> None:
    figure = measurements.Figure(name="retention", score=0.5, n=1, how="asked")
    for minute in range(30):
        with local.store.write() as connection:
            at = local.context.clock() + timedelta(minutes=minute)
            measurements.insert(connection, 7, "monitor", [replace(figure, score=minute / 30)], at)

    with local.store.read() as connection:
        latest = measurements.read_latest(connection, 7)["retention"]
        kept = connection.exec_driver_sql("SELECT COUNT(*) FROM measurements WHERE version = 7").scalar_one()
    assert (latest.score, kept) == (29 / 30, measurements.ROWS_KEPT)
