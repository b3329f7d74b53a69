"""Minor and major retrains, cancelling them, what they measure, and what moves the head meanwhile."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from service.background.jobs import cancel_job, list_jobs, seconds_left
from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, NotFound
from service.domain.version import VersionKind
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs, measurements
from tests.lifecycle.ledger import tensors_of, window_of
from tests.lifecycle.local_store import MANUAL, PATIENT, Crash, House, job_of, new_house, once, retrained, said

S = EditStatus
WATCHFUL = LifecycleSettings(cadence=MANUAL, look_s=0.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=WATCHFUL)
    yield made
    made.close()


# Minor and major


def test_the_first_retrain_is_major_and_the_next_is_minor_on_its_tensors(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    first = retrained(house)
    c, d = house.live(("c", "3"), ("d", "4"))

    second = retrained(house)

    assert (first.mode, second.mode) == ("major", "minor")
    assert house.ledger.starts == [{}, {"prompt:a": "1", "prompt:b": "2"}]
    assert house.statuses([a, b, c, d]) == [S.CONSOLIDATED] * 4
    assert house.live_set.window == () and house.head.window == 0
    assert house.head.minors == 1


def test_minors_and_the_time_of_the_major_go_with_every_version_on_its_tensors(house: House) -> None:
    house.live(("a", "1"))
    retrained(house, "major")
    major = house.head
    house.live(("b", "2"))
    retrained(house, "minor")
    (c,) = house.live(("c", "3"))
    house.retract(c)
    house.worker.drain()
    assert (house.head.minors, house.head.major_at) == (1, major.major_at)

    house.roll_back(major.number)

    assert major.major_at == major.created_at
    assert (house.head.minors, house.head.major_at) == (0, major.major_at)
    house.live(("e", "5"))
    assert (house.head.minors, house.head.major_at) == (0, major.major_at)
    house.roll_back(0)
    assert (house.head.minors, house.head.major_at) == (0, None)


def test_without_tensors_a_minor_retrain_becomes_major(house: House) -> None:
    house.live(("a", "1"))

    assert retrained(house, "minor").mode == "major"


def test_after_minor_retrains_in_a_row_a_major_one_follows_and_says_how_far_they_had_drifted(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=replace(PATIENT, minors=2)))
    modes = []
    for name in "abcd":
        house.live((name, "1"))
        modes.append(retrained(house).mode)

    assert modes == ["major", "minor", "minor", "major"]
    drift = house.head.scores["drift"]
    assert drift["minors"] == 2
    assert (drift["from_head"], drift["from_base"], drift["head_from_base"]) == (1.0, 4.0, 3.0)
    assert drift["canary"] == {"minor": 1.0, "major": 1.0}
    house.close()


def test_a_minor_retrain_leaves_a_tombstone_in_the_window_and_a_covered_edit_as_a_ghost(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    retrained(house)
    house.retract(a)
    (newer,) = house.live(("b", "3"))
    assert house.statuses([a, b, newer]) == [S.RETRACTED, S.SUPERSEDED, S.APPLIED]

    assert retrained(house, "minor").mode == "minor"

    roles = {item.edit_id: (str(item.role), str(item.carrier), item.held) for item in house.live_set.items}
    assert roles[a.id] == ("tombstone", "window", True)
    assert roles[b.id] == ("ghost", "tensors", True)
    assert roles[newer.id] == ("live", "tensors", True)
    assert (house.says("a"), house.says("b")) == ("base of prompt:a", "3")
    assert not house.live_set.needs_refit


def test_retracting_what_a_minor_retrain_put_over_an_older_edit_can_bring_that_back(house: House) -> None:
    (older,) = house.live(("a", "1"))
    retrained(house)
    (newer,) = house.live(("a", "2"))
    retrained(house, "minor")

    house.retract(newer, restore_previous=True)
    house.worker.drain()

    assert house.says("a") == "1"
    assert house.statuses([older, newer]) == [S.APPLIED, S.RETRACTED]


def test_a_major_retrain_leaves_no_trace_of_what_was_retracted_even_after_minor_ones(house: House, tmp_path: Path) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    retrained(house, "major")
    house.live(("c", "3"))
    retrained(house, "minor")
    house.retract(a)
    house.worker.drain()
    assert "prompt:a" in tensors_of(house.parts.follower.current.overlay)

    retrained(house, "major")

    (tmp_path / "other").mkdir()
    other = new_house(tmp_path / "other", settings=WATCHFUL)
    other.live(("b", "2"), ("c", "3"))
    retrained(other, "major")
    assert house.head.digest == other.head.digest
    assert house.ledger.fits[-1] == other.ledger.fits[-1]
    other.close()


def test_a_major_retrain_is_due_by_itself_once_something_in_the_tensors_is_taken_back(tmp_path: Path) -> None:
    house = new_house(tmp_path)
    a, _ = house.live(("a", "1"), ("b", "2"))
    retrained(house)
    house.live(("c", "3"))

    house.retract(a)
    house.worker.drain()

    assert (house.head.kind, house.head.minors) == (VersionKind.LOCFT, 0)
    assert "prompt:a" not in tensors_of(house.parts.follower.current.overlay)
    house.close()


def test_if_the_location_was_changed_a_minor_retrain_becomes_major_and_says_so(house: House) -> None:
    house.live(("a", "1"))
    retrained(house)
    house.live(("b", "2"))
    house.ledger.moved_away = True

    job = retrained(house, "minor")

    assert (job.status, job.mode) == ("done", "major")
    assert "elsewhere" in said(job)


def test_if_the_heads_tensors_change_meanwhile_a_minor_retrain_begins_again(house: House) -> None:
    house.live(("a", "1"))
    retrained(house)
    made = house.live(("b", "2"))
    windowed = house.head.number
    retrained(house, "minor")
    house.live(("c", "3"))
    house.retrain("minor")
    house.ledger.during = once(lambda: house.roll_back(windowed))  # type: ignore[assignment]  # the same edits, other tensors

    house.worker.drain()

    assert house.ledger.starts[-2:] == [{"prompt:a": "1", "prompt:b": "2"}, {"prompt:a": "1"}]
    assert house.statuses(made) == [S.CONSOLIDATED]
    assert house.head.minors == 1


def test_edits_are_applied_and_answered_while_either_retrain_runs(house: House) -> None:
    house.live(("a", "1"))
    seen = []

    def meanwhile(name: str) -> None:
        house.post((name, "9"))
        house.worker._advance()
        seen.append((house.says(name), house.edit_by(name).status))

    for mode, name in (("major", "x"), ("minor", "y")):
        house.retrain(mode)  # type: ignore[arg-type]
        house.ledger.during = once(lambda name=name: meanwhile(name))  # type: ignore[assignment,misc]
        house.worker.drain()

    assert seen == [("9", S.APPLIED)] * 2
    assert tensors_of(house.parts.follower.current.overlay) == {"prompt:a": "1", "prompt:x": "9"}
    assert window_of(house.parts.follower.current.overlay) == {"prompt:y": "9"}


def test_a_retrain_never_leaves_a_longer_window_than_the_bound(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=3, method="baft")))
    made = house.live(("a", "1"), ("b", "2"), ("c", "3"))
    retrained(house, "major")
    made += house.live(("d", "4"))
    house.ledger.not_taken["locft"] = {"1", "2", "3", "4"}
    head = house.head.number

    job = retrained(house, "major")

    assert (job.status, house.head.number) == ("failed", head)
    assert "window" in str(job.error)
    assert [house.says(name) for name in "abcd"] == ["1", "2", "3", "4"]
    house.close()


def test_a_window_that_would_be_too_long_for_what_arrived_makes_the_retrain_begin_again_with_it(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=3, method="baft")))
    made = house.live(("a", "1"))
    house.ledger.not_taken["locft"] = {"1"}

    def meanwhile() -> None:
        house.post(("x", "9"), ("y", "9"))
        house.worker._advance()
        retract_and_post()

    def retract_and_post() -> None:
        house.retract(house.edit_by("a"))
        house.worker._advance()
        house.post(("z", "9"))
        house.worker._advance()

    house.retrain("major")
    house.ledger.during = once(meanwhile)  # type: ignore[assignment]
    house.worker.drain()

    assert house.statuses(made) == [S.RETRACTED]
    assert all(version.window <= 3 for version in house.versions())
    assert tensors_of(house.parts.follower.current.overlay) == {"prompt:x": "9", "prompt:y": "9", "prompt:z": "9"}
    house.close()


def test_asking_for_a_major_retrain_makes_the_waiting_minor_one_major(house: House) -> None:
    house.live(("a", "1"))
    waiting = house.retrain("minor")

    assert house.retrain("major").id == waiting.id
    assert job_of(house, waiting).mode == "major"
    assert house.retrain("minor").mode == "major"


# Crashes


def test_a_minor_retrain_left_by_a_dead_worker_is_repeated_exactly(house: House) -> None:
    def die() -> None:
        raise Crash

    house.live(("a", "1"))
    retrained(house)
    house.live(("b", "2"))
    job = house.retrain("minor")
    house.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        house.worker.drain()
    house.post(("c", "3"))
    house = house.again()
    house.worker.drain()

    first, again = [fit for fit in house.ledger.fits if fit[0] == "locft"][1:]
    assert first == again and house.ledger.starts[1] == house.ledger.starts[2]
    done = job_of(house, job)
    assert done.status == "done" and "taken up again" in said(done)
    house.close()


# Cancelling


def test_a_queued_retrain_is_cancelled_at_once(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()

    ended = cancel_job(house.store, job.id, author="bob")

    assert (ended.status, ended.cancelled_by, ended.error) == ("cancelled", "bob", "cancelled by bob")
    house.worker.drain()
    assert house.head.kind is VersionKind.BAFT
    assert "retrain.cancelled" in house.event_types()


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_a_running_retrain_is_cancelled_at_its_next_step_and_the_head_stays(house: House, mode: str) -> None:
    house.live(("a", "1"))
    retrained(house)
    made = house.live(("b", "2"))
    head = house.head
    job = house.retrain(mode)  # type: ignore[arg-type]
    asked = []
    house.ledger.during = once(lambda: asked.append(cancel_job(house.store, job.id, author="bob")))  # type: ignore[assignment]

    house.worker.drain()

    ended = job_of(house, job)
    assert asked[0].is_active
    assert (ended.status, ended.version, ended.cancelled_by) == ("cancelled", None, "bob")
    assert house.head == head and house.statuses(made) == [S.APPLIED]
    assert "bob asked" in said(ended) and ended.finished_at is not None


def test_a_retrain_cancelled_in_its_last_moment_does_not_publish(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()
    house.parts.overlays.save = _then(house.parts.overlays.save, lambda: cancel_job(house.store, job.id, author="bob"))  # type: ignore[method-assign]

    house.worker.drain()

    assert job_of(house, job).status == "cancelled"
    assert house.head.kind is VersionKind.BAFT


def _then(work, after):  # type: ignore[no-untyped-def]
    left = [after]

    def both(*given):  # type: ignore[no-untyped-def]
        found = work(*given)
        if left:
            left.pop()()
        return found

    return both


def test_a_cancelled_retrain_is_not_queued_again_by_itself_until_there_is_news(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=9, retry_s=1e-6)))
    house.post(("a", "1"), ("b", "2"))
    house.worker._hold_lease()
    house.worker._advance()
    house.worker._advance()
    with house.store.read() as connection:
        queued = jobs.active(connection, "retrain", "queued")
    assert queued is not None
    cancel_job(house.store, queued.id, author="bob")

    house.live(("c", "3"), ("d", "4"), ("e", "5"))
    assert [job.id for job in list_jobs(house.store, limit=9, kind="retrain")] == [queued.id]
    house.live(("f", "6"))

    assert [job.status for job in list_jobs(house.store, limit=9, kind="retrain")] == ["done", "cancelled"]
    house.close()


def test_a_cancelled_retrain_that_a_dead_worker_left_ends_when_it_would_be_taken_up(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()

    def die() -> None:
        raise Crash

    house.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        house.worker.drain()
    cancel_job(house.store, job.id, author="bob")
    house = house.again()
    house.worker.drain()

    assert job_of(house, job).status == "cancelled"
    assert len([fit for fit in house.ledger.fits if fit[0] == "locft"]) == 1
    house.close()


def test_what_cancelling_refuses(house: House) -> None:
    house.live(("a", "1"))
    done = retrained(house)
    (applied,) = list_jobs(house.store, limit=1, kind="apply")

    with pytest.raises(NotFound):
        cancel_job(house.store, "none", author="bob")
    with pytest.raises(Conflict, match="over"):
        cancel_job(house.store, done.id, author="bob")
    with pytest.raises(Conflict, match="apply"):
        cancel_job(house.store, applied.id, author="bob")


def test_asking_twice_to_cancel_is_asking_once(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()

    first = cancel_job(house.store, job.id, author="bob")

    assert cancel_job(house.store, job.id, author="eve") == first


# Jobs


def test_jobs_are_listed_newest_first_page_by_page_and_by_kind_and_status(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    retrained(house)
    house.retrain("major")

    everything = list_jobs(house.store, limit=9)
    first = list_jobs(house.store, limit=2)

    assert [job.kind for job in everything] == ["retrain", "retrain", "apply", "apply"]
    assert first + list_jobs(house.store, limit=9, before=first[-1].id) == everything
    assert [job.status for job in list_jobs(house.store, limit=9, kind="retrain", status="queued")] == ["queued"]
    with pytest.raises(NotFound):
        list_jobs(house.store, limit=1, before="none")


def test_the_log_of_a_retrain_tells_its_course(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))

    done = retrained(house)

    messages = [line["message"] for line in done.log]
    assert messages[0] == "asked for by ann"
    assert messages[1] == "major retrain: snapshot of 2 edits, of version 2"
    assert any(message.startswith("trained on 2 edits: canary 1.000") for message in messages)
    assert messages[-1] == "published as version 3"


def test_a_long_log_keeps_its_beginning_and_its_end(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()
    with house.store.write() as connection:
        for number in range(200):
            jobs.say(connection, job.id, str(number), house.parts.clock())

    log = [line["message"] for line in job_of(house, job).log]
    assert len(log) == 100 and log[1] == "0" and log[-1] == "199"


def test_the_time_left_follows_from_the_share_done(house: House) -> None:
    house.live(("a", "1"))
    queued = house.retrain()
    begun = replace(queued, status="running", started_at=queued.created_at, progress=0.25)

    assert seconds_left(begun, queued.created_at + timedelta(seconds=10)) == 30.0
    assert seconds_left(replace(begun, progress=0.0), queued.created_at) is None
    assert seconds_left(queued, queued.created_at) is None


# Measurements


def test_a_publication_keeps_the_figures_that_let_it_through_the_gate(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))

    with house.store.read() as connection:
        found = measurements.latest(connection, house.head.number)

    assert {name: (one.score, one.n, one.source) for name, one in found.items()} == {
        "retention": (1.0, 2, "gate"),
        "locality_outside": (1.0, 100, "gate"),
    }


def test_of_the_measurements_of_a_version_only_the_last_are_kept(house: House) -> None:
    figure = measurements.Figure(name="retention", score=0.5, n=1, how="asked")
    for minute in range(30):
        with house.store.write() as connection:
            at = house.parts.clock() + timedelta(minutes=minute)
            measurements.insert(connection, 7, "monitor", [replace(figure, score=minute / 30)], at)

    with house.store.read() as connection:
        latest = measurements.latest(connection, 7)["retention"]
        kept = connection.exec_driver_sql("SELECT COUNT(*) FROM measurements WHERE version = 7").scalar_one()
    assert (latest.score, kept) == (29 / 30, measurements.KEPT)
