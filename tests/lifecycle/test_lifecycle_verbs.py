"""Each verb's rules: what is published, what is deferred, what fails, what is taken back, and what a crash leaves."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.background.collect import collect, pin
from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Corrupt, Gone, NotFound, Stale
from service.domain.version import VersionKind, VersionStatus
from service.lifecycle.head_snapshot import read_head
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.settings import LifecycleSettings
from service.lm.overlay import EMPTY
from service.store import heads, jobs, versions
from service.store.heads import FenceLost
from tests.lifecycle.local_store import PATIENT, Crash, House, new_house, once

S = EditStatus


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path)
    yield made
    made.close()


# Applying


def test_edits_that_wait_together_are_one_job_and_one_version(house: House) -> None:
    made = house.post(("a", "1"), ("b", "2"), ("c", "3"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED] * 3
    assert [version.number for version in house.versions()] == [0, 1]
    assert house.head.edits_counted == 3


def test_of_two_edits_of_one_fact_in_a_batch_the_later_supersedes_the_earlier(house: House) -> None:
    first, second = house.post(("a", "1"), ("a", "2"))

    house.worker.drain()

    assert house.statuses([first, second]) == [S.SUPERSEDED, S.APPLIED]
    assert house.edit(first).superseded_by == second.id
    assert house.edit(second).supersedes == first.id
    assert house.ledger.fits[0][1] == ("2",)


def test_a_newer_edit_that_fails_supersedes_nothing(house: House) -> None:
    (first,) = house.live(("a", "1"))
    house.ledger.breaks = {"2"}

    (second,) = house.live(("a", "2"))

    assert house.statuses([first, second]) == [S.APPLIED, S.FAILED]
    assert house.says("a") == "1"


def test_an_edit_that_is_not_taken_is_deferred_and_the_others_of_its_job_are_published(house: House) -> None:
    house.ledger.not_taken["baft"] = {"2"}
    made = house.post(("a", "1"), ("b", "2"), ("c", "3"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED, S.DEFERRED, S.APPLIED]
    assert (house.says("a"), house.says("b"), house.says("c")) == ("1", "base of prompt:b", "3")
    assert "retrain" in str(house.edit(made[1]).error)


def test_an_edit_with_which_live_ones_would_be_lost_is_deferred(house: House) -> None:
    house.live(("a", "1"))
    house.ledger.costs = {"3"}
    made = house.post(("b", "2"), ("c", "3"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert house.live_set.ids == {item.edit_id for item in house.live_set.items}


def test_an_edit_that_was_lost_before_does_not_stand_in_the_way_of_others(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.worker.drain()
    house.live(("c", "3"), ("d", "4"))
    house.ledger.forgets = {"1"}
    house.retract(house.edit_by("c"))
    house.worker.drain()
    assert house.head.scores["lost"] == [house.edit_by("a").id]

    (made,) = house.live(("e", "5"))

    assert house.statuses([made]) == [S.APPLIED]


def test_if_the_newer_of_a_batch_is_not_taken_the_older_is_applied(house: House) -> None:
    house.ledger.not_taken["baft"] = {"2"}
    made = house.post(("a", "1"), ("a", "2"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert house.says("a") == "1"


def test_a_fit_that_breaks_fails_its_edit_after_three_attempts_and_the_queue_goes_on(house: House) -> None:
    house.ledger.breaks = {"2"}
    made = house.post(("a", "1"), ("b", "2"), ("c", "3"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED, S.FAILED, S.APPLIED]
    alone = [seed for method, targets, seed in house.ledger.fits if targets == ("2",)]
    assert len(alone) == len(set(alone)) == 3
    assert house.edit(made[1]).error == "the loss is not finite"


def test_a_gate_that_refuses_a_batch_lets_its_older_half_through(house: House) -> None:
    house.ledger.canary = lambda size: 1.0 if size <= 2 else 0.5
    made = house.post(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED, S.APPLIED, S.DEFERRED, S.DEFERRED]
    assert "0.500" in str(house.edit(made[2]).error)


def test_a_full_window_makes_edits_wait_for_the_retrain_that_is_due(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3)))
    made = house.post(*((name, "1") for name in "abcde"))

    house.worker.drain()

    assert house.statuses(made)[:3] == [S.CONSOLIDATED] * 3
    assert {status.is_live for status in house.statuses(made)} == {True}
    assert all(version.window <= 3 for version in house.versions())
    assert VersionKind.LOCFT in {version.kind for version in house.versions()}
    house.close()


def test_a_full_window_defers_if_no_retrain_comes_by_itself(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3, method="baft")))
    made = house.post(*((name, "1") for name in "abcde"))

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED] * 3 + [S.DEFERRED] * 2
    house.close()


def test_the_same_posts_give_the_same_bytes_in_another_store(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        house = new_house(tmp_path / name)
        house.live(("a", "1"), ("b", "2"))
        digests.append(([version.digest for version in house.versions()], house.ledger.fits))
        house.close()

    assert digests[0] == digests[1]


# Crashes and other workers


def test_a_job_left_by_a_dead_worker_is_repeated_exactly(house: House) -> None:
    def die() -> None:
        raise Crash

    made = house.post(("a", "1"), ("b", "2"))
    house.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        house.worker.drain()
    late = house.post(("c", "3"))
    assert house.statuses(made + late) == [S.APPLYING, S.APPLYING, S.QUEUED]

    house = house.again()
    house.worker.drain()

    first, again, last = house.ledger.fits
    assert first == again and last[1] == ("3",)
    assert house.statuses(made + late) == [S.APPLIED] * 3
    house.close()


def test_a_job_that_ends_the_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=PATIENT, claims=2))

    def die(method: str) -> None:
        raise Crash

    made = house.post(("a", "1"))
    house.ledger.during = die
    for _ in range(2):
        with pytest.raises(Crash):
            house.worker.drain()
        house = house.again()
    house.worker.drain()

    assert house.statuses(made) == [S.FAILED]
    house.close()


def test_an_old_fence_cannot_publish(house: House) -> None:
    house.worker.drain()
    stand = read_head(house.parts)
    old = house.worker.fence
    assert old is not None
    with house.store.write() as connection:
        heads.take_lease(connection, "another", lease_s=60.0, at_once=True)

    with pytest.raises(FenceLost):
        publish(
            house.parts,
            Candidate(
                parent=stand.head,
                fence=old,
                kind=VersionKind.BAFT,
                overlay=EMPTY,
                live_set=stand.live_set,
                changes=(),
                author="ann",
            ),
        )

    assert house.head.number == 0
    assert house.parts.follower.current.version == 0


def test_a_candidate_of_a_head_that_moved_is_not_published(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    stand, fence = read_head(house.parts), house.worker.fence
    assert fence is not None
    house.roll_back(1)

    with pytest.raises(Stale):
        publish(
            house.parts,
            Candidate(
                parent=stand.head,
                fence=fence,
                kind=VersionKind.BAFT,
                overlay=EMPTY,
                live_set=stand.live_set,
                changes=(),
                author="ann",
            ),
        )

    assert house.head.number == 3


def test_a_worker_that_was_replaced_stops_and_the_other_does_the_work_once(house: House) -> None:
    other = House(house.url, house.folder, ledger=house.ledger, settings=house.settings)
    made = house.post(("a", "1"))
    house.ledger.during = once(other.worker._hold_lease)  # type: ignore[assignment]

    house.worker.step()
    assert house.worker.fence is None
    assert house.statuses(made) == [S.APPLYING]
    other.worker.drain()

    assert house.statuses(made) == [S.APPLIED]
    assert [version.number for version in house.versions()] == [0, 1]
    other.close()


def test_a_process_follows_a_head_that_another_one_moved(house: House) -> None:
    other = House(house.url, house.folder, alone=False)

    house.live(("a", "1"))
    other.worker.step()

    assert other.worker.fence is None
    assert other.says("a") == "1"
    assert other.parts.follower.current.epoch == house.parts.follower.current.epoch
    other.close()


def test_what_is_announced_is_answered_already(house: House) -> None:
    (edit,) = house.post(("a", "1"))

    async def wait() -> tuple[bool, str]:
        waiting = asyncio.create_task(house.parts.announcer.wait(edit.id, 30.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(house.worker.drain)
        return await waiting, house.says("a")

    assert asyncio.run(wait()) == (True, "1")


def test_a_wait_ends_in_time_and_sees_what_settled_before_it_began(house: House) -> None:
    (edit,) = house.live(("a", "1"))
    announcer = house.parts.announcer

    assert asyncio.run(announcer.wait(edit.id, 0.01)) is False
    assert asyncio.run(announcer.wait(edit.id, 30.0, is_settled=lambda edit_id: True)) is True
    assert announcer.waited_for() == ()


# Rolling back


def test_a_rollback_publishes_the_old_overlay_under_a_new_number(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))

    done = house.roll_back(1)

    assert (done.version, done.restored, done.epoch, done.rolled_back) == (3, 1, 3, (b.id,))
    assert house.statuses([a, b]) == [S.APPLIED, S.ROLLED_BACK]
    assert house.head.kind is VersionKind.ROLLBACK
    assert house.head.digest == house.versions()[1].digest
    assert (house.says("a"), house.says("b")) == ("1", "base of prompt:b")
    again = house.again()
    assert again.says("a") == "1"
    again.close()


def test_a_rollback_to_the_base_and_back_again(house: House) -> None:
    made = house.live(("a", "1"), ("b", "2"))

    house.roll_back(0)
    assert (house.says("a"), house.head.digest) == ("base of prompt:a", None)
    house.roll_back(2)

    assert house.statuses(made) == [S.APPLIED] * 2
    assert house.says("b") == "2"


def test_a_rollback_brings_back_what_was_superseded_after_it(house: House) -> None:
    first, second = house.live(("a", "1"), ("a", "2"))

    house.roll_back(1)

    assert house.statuses([first, second]) == [S.APPLIED, S.ROLLED_BACK]
    assert house.edit(first).superseded_by is None


def test_with_requeue_what_falls_out_is_applied_on_top(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))

    house.roll_back(0, requeue=True)
    assert house.statuses([a, b]) == [S.QUEUED] * 2
    house.worker.drain()

    assert house.statuses([a, b]) == [S.APPLIED] * 2
    assert (house.says("a"), house.says("b")) == ("1", "2")


@pytest.mark.parametrize("consolidated", [False, True])
def test_a_rollback_does_not_bring_back_what_was_retracted_since(house: House, consolidated: bool) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    if consolidated:
        house.retrain()
        house.worker.drain()
    target = house.head.number
    house.retract(a)
    house.worker.drain()

    house.roll_back(target)
    house.worker.drain()

    assert house.statuses([a, b])[0] is S.RETRACTED
    assert (house.says("a"), house.says("b")) == ("base of prompt:a", "2")


def test_a_rollback_during_a_fit_makes_the_fit_repeat_on_the_new_head(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    (c,) = house.post(("c", "3"))
    house.ledger.during = once(lambda: house.roll_back(1))  # type: ignore[assignment]

    house.worker.drain()

    assert house.statuses([a, c]) == [S.APPLIED] * 2
    assert (house.says("a"), house.says("b"), house.says("c")) == ("1", "base of prompt:b", "3")
    assert [version.parent for version in house.versions()[1:]] == [0, 1, 2, 3]


def test_what_a_rollback_refuses(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))

    with pytest.raises(Conflict):
        house.roll_back(2)
    with pytest.raises(NotFound):
        house.roll_back(9)
    with pytest.raises(Stale):
        house.roll_back(1, if_match=7)
    assert house.head.number == 2
    assert house.roll_back(1, if_match=2).epoch == 3


def test_of_two_rollbacks_with_one_epoch_one_wins(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))

    def back(to: int) -> str:
        try:
            house.roll_back(to, if_match=2)
        except Stale:
            return "stale"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(back, [0, 1])) == ["done", "stale"]


def test_a_rollback_to_damaged_or_collected_bytes_is_refused_and_the_worker_marks_the_damage(house: House) -> None:
    house.live(("a", "1"), ("b", "2"), ("c", "3"))
    damage(house, 1)
    house = house.again()

    with pytest.raises(Corrupt):
        house.roll_back(1)
    house.worker.drain()
    with house.store.write() as connection:
        versions.collect(connection, [2])
    with pytest.raises(Gone):
        house.roll_back(2)

    assert house.versions()[1].status is VersionStatus.CORRUPT
    assert house.head.number == 3
    house.close()


# Taking back


def test_a_queued_edit_is_retracted_at_once_and_never_fitted(house: House) -> None:
    (edit,) = house.post(("a", "1"))

    assert house.retract(edit).is_done
    house.worker.drain()

    assert house.statuses([edit]) == [S.RETRACTED]
    assert house.ledger.fits == []


def test_an_edit_of_the_window_is_taken_out_by_a_refit_of_the_others(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))

    assert not house.retract(a).is_done
    house.worker.drain()

    assert house.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert (house.says("a"), house.says("b")) == ("base of prompt:a", "2")
    assert house.head.kind is VersionKind.RETRACT


def test_the_last_edit_taken_back_leaves_the_base_itself(house: House) -> None:
    (a,) = house.live(("a", "1"))

    house.retract(a)
    house.worker.drain()

    assert house.head.digest is None
    assert house.live_set.items == ()


def test_a_consolidated_edit_is_answered_by_a_tombstone_until_a_retrain_forgets_it(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=99, method="baft")))
    a, b = house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.worker.drain()

    house.retract(a)
    house.worker.drain()
    assert house.live_set.get(a.id).answer == "base of prompt:a"  # type: ignore[union-attr]
    assert house.says("a") == "base of prompt:a"
    assert house.statuses([a, b]) == [S.RETRACTED, S.CONSOLIDATED]
    house.retrain()
    house.worker.drain()

    assert [item.edit_id for item in house.live_set.items] == [b.id]
    without = new_digest(tmp_path, ("b", "2"))
    assert house.head.digest == without
    house.close()


def test_retracting_a_consolidated_edit_makes_a_retrain_due(house: House) -> None:
    (a,) = house.live(("a", "1"))
    house.retrain()
    house.worker.drain()

    house.retract(a)
    house.worker.drain()

    assert house.head.kind is VersionKind.LOCFT
    assert (house.head.digest, house.live_set.items) == (None, ())


def test_retracting_the_newer_revives_the_older_only_if_asked(house: House) -> None:
    for restore, said, status in ((False, "base of prompt:a", S.SUPERSEDED), (True, "1", S.APPLIED)):
        first, second = house.live(("a", "1"), ("a", "2"))
        house.retract(second, restore_previous=restore)
        house.worker.drain()
        assert house.says("a") == said
        assert house.statuses([first, second]) == [status, S.RETRACTED]


def test_what_a_retraction_refuses(house: House) -> None:
    first, second = house.live(("a", "1"), ("a", "2"))

    with pytest.raises(Conflict):
        house.retract(first)
    house.retract(second)
    assert not house.retract(second).is_done
    house.worker.drain()

    assert house.retract(second).is_done


def test_an_edit_retracted_during_its_fit_is_never_live(house: House) -> None:
    a, b = house.post(("a", "1"), ("b", "2"))
    house.ledger.during = once(lambda: house.retract(a))  # type: ignore[assignment]

    house.worker.drain()

    assert house.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert house.says("a") == "base of prompt:a"
    assert all(a.id not in live_ids(house, version.number) for version in house.versions())


def test_a_window_edit_lost_by_a_refit_is_deferred_and_the_retraction_holds(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    house.ledger.not_taken["baft"] = {"2"}

    house.retract(a)
    house.worker.drain()

    assert house.statuses([a, b]) == [S.RETRACTED, S.DEFERRED]
    assert house.says("a") == "base of prompt:a"


# Retraining


def test_a_retrain_moves_the_window_and_the_deferred_into_the_tensors(house: House) -> None:
    made = house.live(("a", "1")) + house.post(("b", "2"), method="locft")
    assert house.statuses(made) == [S.APPLIED, S.DEFERRED]

    job = house.retrain()
    house.worker.drain()

    assert house.statuses(made) == [S.CONSOLIDATED] * 2
    assert house.live_set.window == ()
    assert (house.says("a"), house.says("b")) == ("1", "2")
    with house.store.read() as connection:
        done = jobs.get(connection, job.id)
    assert (done.status, done.version, done.progress) == ("done", house.head.number, 1.0)


def test_there_is_nothing_to_retrain_in_an_empty_store(house: House) -> None:
    with pytest.raises(Conflict, match="nothing to retrain"):
        house.retrain()


def test_asking_for_a_retrain_twice_is_asking_once(house: House) -> None:
    house.live(("a", "1"))

    assert house.retrain().id == house.retrain().id


def test_edits_applied_during_a_retrain_are_its_new_window(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))

    def meanwhile() -> None:
        house.post(("c", "3"))
        house.worker._advance()

    house.retrain()
    house.ledger.during = once(meanwhile)  # type: ignore[assignment]
    house.worker.drain()

    assert house.statuses([a, b]) == [S.CONSOLIDATED] * 2
    assert [house.edit_by("c").status] == [S.APPLIED]
    assert [house.says(name) for name in "abc"] == ["1", "2", "3"]
    assert house.head.kind is VersionKind.LOCFT
    assert [method for method, _, _ in house.ledger.fits].count("locft") == 1


def test_an_edit_retracted_during_a_retrain_is_never_in_the_tensors_it_publishes(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.ledger.during = once(lambda: house.retract(a))  # type: ignore[assignment]

    house.worker.drain()

    assert house.statuses([a, b]) == [S.RETRACTED, S.CONSOLIDATED]
    assert [item.edit_id for item in house.live_set.items] == [b.id]
    assert all("1" not in targets for method, targets, _ in house.ledger.fits[-1:])
    assert house.says("a") == "base of prompt:a"


def test_a_rollback_during_a_retrain_makes_it_train_on_what_is_left(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.ledger.during = once(lambda: house.roll_back(1))  # type: ignore[assignment]

    house.worker.drain()

    assert house.statuses([a, b]) == [S.CONSOLIDATED, S.ROLLED_BACK]
    assert (house.says("a"), house.says("b")) == ("1", "base of prompt:b")


def test_a_retrain_that_loses_to_edits_makes_applying_pause_and_ends(house: House) -> None:
    house.live(("a", "1"))
    names = iter("bcdefghijk")

    def another(method: str) -> None:
        name = next(names, None)
        if name is not None and not house.worker._pressed:
            house.ledger.during = lambda method: None
            house.post((name, "1"))
            house.worker._advance()
            house.ledger.during = another

    house.retrain()
    house.ledger.during = another
    house.worker._hold_lease()
    house.worker._retrain()

    assert house.head.kind is VersionKind.LOCFT
    assert not house.worker._pressed
    house.ledger.during = lambda method: None
    house.worker.drain()
    assert house.says("b") == "1"


def test_what_a_retrain_loses_stays_in_the_window(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    house.ledger.not_taken["locft"] = {"2"}

    house.retrain()
    house.worker.drain()

    assert house.statuses([a, b]) == [S.CONSOLIDATED, S.APPLIED]
    assert house.says("b") == "2"


def test_an_edit_that_neither_method_takes_fails_with_a_reason(house: House) -> None:
    house.live(("a", "1"))
    house.ledger.not_taken = {"baft": {"2"}, "locft": {"2"}}
    (b,) = house.live(("b", "2"))
    assert house.statuses([b]) == [S.DEFERRED]

    house.retrain()
    house.worker.drain()

    assert house.statuses([b]) == [S.FAILED]
    assert house.says("a") == "1"
    assert house.edit(b).error


def test_a_retrain_that_the_gate_refuses_fails_with_the_figures_and_changes_nothing(house: House) -> None:
    made = house.live(("a", "1"))
    house.ledger.canary = lambda size: 0.1 if size == 0 else 1.0

    job = house.retrain()
    house.worker.drain()

    with house.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "0.100" in str(refused.error)
    assert house.statuses(made) == [S.APPLIED]
    assert "candidate.refused" in house.event_types()


def test_a_retrain_that_meets_numbers_that_are_not_finite_ends_at_once_because_another_would_meet_them_too(house: House) -> None:
    house.live(("a", "1"))
    house.ledger.breaks = {"1"}

    job = house.retrain()
    house.worker.drain()

    with house.store.read() as connection:
        broken = jobs.get(connection, job.id)
    assert (broken.status, broken.failures, broken.error) == ("failed", 1, "the loss is not finite")
    assert house.says("a") == "1"


def test_a_retrain_left_by_a_dead_worker_is_repeated_exactly(house: House) -> None:
    def die() -> None:
        raise Crash

    house.live(("a", "1"), ("b", "2"))
    job = house.retrain()
    house.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        house.worker.drain()
    house.post(("c", "3"))
    house = house.again()
    house.worker.drain()

    first, again = [fit for fit in house.ledger.fits if fit[0] == "locft"]
    assert first == again
    with house.store.read() as connection:
        assert jobs.get(connection, job.id).status == "done"
    house.close()


# Restarting, collecting


def test_a_damaged_head_is_never_served_and_its_edits_are_learned_again(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    damage(house, 2)

    house = house.again()

    assert house.opened.degraded and "version 2" in house.opened.degraded
    assert (house.says("a"), house.says("b")) == ("1", "base of prompt:b")
    house.worker.drain()
    assert house.versions()[2].status is VersionStatus.CORRUPT
    assert "version.corrupt" in house.event_types()
    assert house.statuses([a, b]) == [S.APPLIED] * 2
    assert house.says("b") == "2"
    assert house.parts.follower.degraded is None
    house.close()


def test_if_every_checkpoint_is_damaged_the_base_is_served_and_all_is_learned_again(house: House) -> None:
    made = house.live(("a", "1"), ("b", "2"))
    damage(house, 1)
    damage(house, 2)

    house = house.again()
    assert house.opened.version == 0
    house.worker.drain()

    assert [version.restores for version in house.versions()].count(0) == 1
    assert house.statuses(made) == [S.APPLIED] * 2
    house.close()


def test_versions_beyond_retention_are_collected_and_answer_gone(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=3, orphan_s=0.0))
    house.live(*((name, "1") for name in "abcdefg"))
    pin(house.parts, 1, author="ann")
    for path in house.folder.glob("*.safetensors"):
        os.utime(path, (0, 0))

    collect(house.parts)

    collected = [version.number for version in house.versions() if version.status is VersionStatus.COLLECTED]
    assert collected == [2, 4, 5]
    # Versions 1 (pinned), 3 (every third), 6 and 7 (the last two).
    assert len(list(house.folder.glob("*.safetensors"))) == 4
    with pytest.raises(Gone):
        house.roll_back(2)
    with pytest.raises(Conflict):
        pin(house.parts, 2, author="ann")
    house.close()


def test_an_identical_edit_is_accepted_as_the_live_one(house: House) -> None:
    (a,) = house.live(("a", "1"))
    with house.store.read() as connection:
        before = heads.read(connection)

    (again,) = house.post(("a", "1"))
    house.worker.drain()

    assert again.id == a.id
    assert house.parts.follower.current.epoch == before.epoch


def test_threads_of_a_worker_apply_retrain_and_stop(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=3, hard=50), sweep_s=0.02))
    house.worker.start()

    async def wait(edit_ids: list[str]) -> list[bool]:
        def is_settled(edit_id: str) -> bool:
            return any(edit.id == edit_id and edit.status.is_settled for edit in house.all_edits())

        return await asyncio.gather(*(house.parts.announcer.wait(one, 30.0, is_settled=is_settled) for one in edit_ids))

    made = [house.post((name, "1"))[0] for name in "abcdefgh"]
    assert all(asyncio.run(wait([edit.id for edit in made])))
    assert {status.is_live for status in house.statuses(made)} == {True}
    house.worker.stop()

    assert not house.worker.is_alive
    assert house.worker.fence is None
    house.close()


def live_ids(house: House, number: int) -> frozenset[str]:
    with house.store.read() as connection:
        return versions.live_set(connection, number).ids


def damage(house: House, number: int) -> None:
    """Flip one bit of a version's checkpoint."""
    path = house.folder / f"{house.versions()[number].digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def new_digest(folder: Path, *facts: tuple[str, str]) -> str | None:
    """The digest of a retrain over some facts in a store that never had others."""
    (folder / "other").mkdir()
    other = new_house(folder / "other")
    other.live(*facts)
    other.retrain()
    other.worker.drain()
    other.close()
    return other.head.digest


# The last round


class Stubborn:
    """Takes every item but one, the newest of those it is asked for, again and again."""

    def __init__(self, house: House, method: str = "baft") -> None:
        self._house, self._method = house, method
        house.ledger.not_taken[method] = self  # type: ignore[assignment]

    def __contains__(self, target: str) -> bool:
        return target == self._house.ledger.fits[-1][1][-1] and len(self._house.ledger.fits[-1][1]) > 1


def test_after_the_last_round_an_apply_keeps_what_was_taken(house: House) -> None:
    made = house.post(*((name, name) for name in "abcdefgh"))
    Stubborn(house)

    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert [house.says(name) for name in "abcd"] == list("abcd")


def test_after_the_last_round_a_refit_keeps_what_was_taken(house: House) -> None:
    made = house.post(*((name, name) for name in "abcdefgh"))
    house.worker.drain()
    Stubborn(house)

    house.retract(made[0])
    house.worker.drain()

    assert house.statuses(made) == [S.RETRACTED] + [S.APPLIED] * 3 + [S.DEFERRED] * 4
    assert [house.says(name) for name in "bcd"] == list("bcd")


def test_after_the_last_round_a_retrain_keeps_what_was_taken(house: House) -> None:
    made = house.post(*((name, name) for name in "abcdefgh"))
    house.worker.drain()
    house.ledger.not_taken["locft"] = set("abcdefgh")
    Stubborn(house)

    job = house.retrain()
    house.worker.drain()

    with house.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "4 of 8" in str(refused.error)
    assert house.statuses(made) == [S.APPLIED] * 8
    assert [house.says(name) for name in "abcdefgh"] == list("abcdefgh")


def test_after_the_last_round_a_retrain_that_may_lose_so_many_keeps_what_was_taken(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=AcceptanceLimits(retrain_losses=0.5)))
    made = house.post(*((name, name) for name in "abcdefgh"))
    house.worker.drain()
    house.ledger.not_taken["locft"] = set("abcdefgh")
    Stubborn(house)

    house.retrain()
    house.worker.drain()

    assert house.statuses(made) == [S.APPLIED] * 4 + [S.FAILED] * 4
    assert [house.says(name) for name in "abcd"] == list("abcd")
