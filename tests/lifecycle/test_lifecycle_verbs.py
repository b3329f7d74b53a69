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
from tests.lifecycle.local_service import PATIENT, Crash, LocalService, new_local_service, once

S = EditStatus


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path)
    yield made
    made.close()


# Applying


def test_edits_that_wait_together_are_one_job_and_one_version(local: LocalService) -> None:
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 3
    assert [version.number for version in local.versions()] == [0, 1]
    assert local.head.edits_counted == 3


def test_of_two_edits_of_one_fact_in_a_batch_the_later_supersedes_the_earlier(local: LocalService) -> None:
    first, second = local.post(("a", "1"), ("a", "2"))

    local.worker.drain()

    assert local.statuses([first, second]) == [S.SUPERSEDED, S.APPLIED]
    assert local.edit(first).superseded_by == second.id
    assert local.edit(second).supersedes == first.id
    assert local.ledger.fits[0][1] == ("2",)


def test_a_newer_edit_that_fails_supersedes_nothing(local: LocalService) -> None:
    (first,) = local.live(("a", "1"))
    local.ledger.breaks = {"2"}

    (second,) = local.live(("a", "2"))

    assert local.statuses([first, second]) == [S.APPLIED, S.FAILED]
    assert local.says("a") == "1"


def test_an_edit_that_is_not_taken_is_deferred_and_the_others_of_its_job_are_published(local: LocalService) -> None:
    local.ledger.not_taken["baft"] = {"2"}
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED, S.APPLIED]
    assert (local.says("a"), local.says("b"), local.says("c")) == ("1", "base of prompt:b", "3")
    assert "retrain" in str(local.edit(made[1]).error)


def test_an_edit_with_which_live_ones_would_be_lost_is_deferred(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.costs = {"3"}
    made = local.post(("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert local.live_set.ids == {item.edit_id for item in local.live_set.items}


def test_an_edit_that_was_lost_before_does_not_stand_in_the_way_of_others(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.worker.drain()
    local.live(("c", "3"), ("d", "4"))
    local.ledger.forgets = {"1"}
    local.retract(local.edit_by("c"))
    local.worker.drain()
    assert local.head.scores["lost"] == [local.edit_by("a").id]

    (made,) = local.live(("e", "5"))

    assert local.statuses([made]) == [S.APPLIED]


def test_if_the_newer_of_a_batch_is_not_taken_the_older_is_applied(local: LocalService) -> None:
    local.ledger.not_taken["baft"] = {"2"}
    made = local.post(("a", "1"), ("a", "2"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert local.says("a") == "1"


def test_a_fit_that_breaks_fails_its_edit_after_three_attempts_and_the_queue_goes_on(local: LocalService) -> None:
    local.ledger.breaks = {"2"}
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.FAILED, S.APPLIED]
    alone = [seed for method, targets, seed in local.ledger.fits if targets == ("2",)]
    assert len(alone) == len(set(alone)) == 3
    assert local.edit(made[1]).error == "the loss is not finite"


def test_a_gate_that_refuses_a_batch_lets_its_older_half_through(local: LocalService) -> None:
    local.ledger.canary = lambda size: 1.0 if size <= 2 else 0.5
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.APPLIED, S.DEFERRED, S.DEFERRED]
    assert "0.500" in str(local.edit(made[2]).error)


def test_a_full_window_makes_edits_wait_for_the_retrain_that_is_due(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3)))
    made = local.post(*((name, "1") for name in "abcde"))

    local.worker.drain()

    assert local.statuses(made)[:3] == [S.CONSOLIDATED] * 3
    assert {status.is_live for status in local.statuses(made)} == {True}
    assert all(version.window <= 3 for version in local.versions())
    assert VersionKind.LOCFT in {version.kind for version in local.versions()}
    local.close()


def test_a_full_window_defers_if_no_retrain_comes_by_itself(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3, method="baft")))
    made = local.post(*((name, "1") for name in "abcde"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 3 + [S.DEFERRED] * 2
    local.close()


def test_the_same_posts_give_the_same_bytes_in_another_store(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        local = new_local_service(tmp_path / name)
        local.live(("a", "1"), ("b", "2"))
        digests.append(([version.digest for version in local.versions()], local.ledger.fits))
        local.close()

    assert digests[0] == digests[1]


# Crashes and other workers


def test_a_job_left_by_a_dead_worker_is_repeated_exactly(local: LocalService) -> None:
    def die() -> None:
        raise Crash

    made = local.post(("a", "1"), ("b", "2"))
    local.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    late = local.post(("c", "3"))
    assert local.statuses(made + late) == [S.APPLYING, S.APPLYING, S.QUEUED]

    local = local.again()
    local.worker.drain()

    first, again, last = local.ledger.fits
    assert first == again and last[1] == ("3",)
    assert local.statuses(made + late) == [S.APPLIED] * 3
    local.close()


def test_a_job_that_ends_the_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, claims=2))

    def die(method: str) -> None:
        raise Crash

    made = local.post(("a", "1"))
    local.ledger.during = die
    for _ in range(2):
        with pytest.raises(Crash):
            local.worker.drain()
        local = local.again()
    local.worker.drain()

    assert local.statuses(made) == [S.FAILED]
    local.close()


def test_an_old_fence_cannot_publish(local: LocalService) -> None:
    local.worker.drain()
    stand = read_head(local.context)
    old = local.worker.fence
    assert old is not None
    with local.store.write() as connection:
        heads.take_lease(connection, "another", lease_s=60.0, is_only_server=True)

    with pytest.raises(FenceLost):
        publish(
            local.context,
            Candidate(
                parent=stand.row,
                fence=old,
                kind=VersionKind.BAFT,
                overlay=EMPTY,
                live_set=stand.live_set,
                changes=(),
                author="ann",
            ),
        )

    assert local.head.number == 0
    assert local.context.follower.current.version == 0


def test_a_candidate_of_a_head_that_moved_is_not_published(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    stand, fence = read_head(local.context), local.worker.fence
    assert fence is not None
    local.roll_back(1)

    with pytest.raises(Stale):
        publish(
            local.context,
            Candidate(
                parent=stand.row,
                fence=fence,
                kind=VersionKind.BAFT,
                overlay=EMPTY,
                live_set=stand.live_set,
                changes=(),
                author="ann",
            ),
        )

    assert local.head.number == 3


def test_a_worker_that_was_replaced_stops_and_the_other_does_the_work_once(local: LocalService) -> None:
    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=local.settings)
    made = local.post(("a", "1"))
    local.ledger.during = once(other.worker._hold_lease)  # type: ignore[assignment]

    local.worker.step()
    assert local.worker.fence is None
    assert local.statuses(made) == [S.APPLYING]
    other.worker.drain()

    assert local.statuses(made) == [S.APPLIED]
    assert [version.number for version in local.versions()] == [0, 1]
    other.close()


def test_a_process_follows_a_head_that_another_one_moved(local: LocalService) -> None:
    other = LocalService(local.url, local.folder, alone=False)

    local.live(("a", "1"))
    other.worker.step()

    assert other.worker.fence is None
    assert other.says("a") == "1"
    assert other.context.follower.current.epoch == local.context.follower.current.epoch
    other.close()


def test_what_is_announced_is_answered_already(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))

    async def wait() -> tuple[bool, str]:
        waiting = asyncio.create_task(local.context.announcer.wait(edit.id, 30.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(local.worker.drain)
        return await waiting, local.says("a")

    assert asyncio.run(wait()) == (True, "1")


def test_a_wait_ends_in_time_and_sees_what_settled_before_it_began(local: LocalService) -> None:
    (edit,) = local.live(("a", "1"))
    announcer = local.context.announcer

    assert asyncio.run(announcer.wait(edit.id, 0.01)) is False
    assert asyncio.run(announcer.wait(edit.id, 30.0, is_settled=lambda edit_id: True)) is True
    assert announcer.awaited_ids() == ()


# Rolling back


def test_a_rollback_publishes_the_old_overlay_under_a_new_number(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    done = local.roll_back(1)

    assert (done.version, done.restored, done.epoch, done.rolled_back) == (3, 1, 3, (b.id,))
    assert local.statuses([a, b]) == [S.APPLIED, S.ROLLED_BACK]
    assert local.head.kind is VersionKind.ROLLBACK
    assert local.head.digest == local.versions()[1].digest
    assert (local.says("a"), local.says("b")) == ("1", "base of prompt:b")
    again = local.again()
    assert again.says("a") == "1"
    again.close()


def test_a_rollback_to_the_base_and_back_again(local: LocalService) -> None:
    made = local.live(("a", "1"), ("b", "2"))

    local.roll_back(0)
    assert (local.says("a"), local.head.digest) == ("base of prompt:a", None)
    local.roll_back(2)

    assert local.statuses(made) == [S.APPLIED] * 2
    assert local.says("b") == "2"


def test_a_rollback_brings_back_what_was_superseded_after_it(local: LocalService) -> None:
    first, second = local.live(("a", "1"), ("a", "2"))

    local.roll_back(1)

    assert local.statuses([first, second]) == [S.APPLIED, S.ROLLED_BACK]
    assert local.edit(first).superseded_by is None


def test_with_requeue_what_falls_out_is_applied_on_top(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    local.roll_back(0, requeue=True)
    assert local.statuses([a, b]) == [S.QUEUED] * 2
    local.worker.drain()

    assert local.statuses([a, b]) == [S.APPLIED] * 2
    assert (local.says("a"), local.says("b")) == ("1", "2")


@pytest.mark.parametrize("consolidated", [False, True])
def test_a_rollback_does_not_bring_back_what_was_retracted_since(local: LocalService, consolidated: bool) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    if consolidated:
        local.retrain()
        local.worker.drain()
    target = local.head.number
    local.retract(a)
    local.worker.drain()

    local.roll_back(target)
    local.worker.drain()

    assert local.statuses([a, b])[0] is S.RETRACTED
    assert (local.says("a"), local.says("b")) == ("base of prompt:a", "2")


def test_a_rollback_during_a_fit_makes_the_fit_repeat_on_the_new_head(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    (c,) = local.post(("c", "3"))
    local.ledger.during = once(lambda: local.roll_back(1))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, c]) == [S.APPLIED] * 2
    assert (local.says("a"), local.says("b"), local.says("c")) == ("1", "base of prompt:b", "3")
    assert [version.parent for version in local.versions()[1:]] == [0, 1, 2, 3]


def test_what_a_rollback_refuses(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))

    with pytest.raises(Conflict):
        local.roll_back(2)
    with pytest.raises(NotFound):
        local.roll_back(9)
    with pytest.raises(Stale):
        local.roll_back(1, if_match=7)
    assert local.head.number == 2
    assert local.roll_back(1, if_match=2).epoch == 3


def test_of_two_rollbacks_with_one_epoch_one_wins(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))

    def back(to: int) -> str:
        try:
            local.roll_back(to, if_match=2)
        except Stale:
            return "stale"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(back, [0, 1])) == ["done", "stale"]


def test_a_rollback_to_damaged_or_collected_bytes_is_refused_and_the_worker_marks_the_damage(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"), ("c", "3"))
    damage(local, 1)
    local = local.again()

    with pytest.raises(Corrupt):
        local.roll_back(1)
    local.worker.drain()
    with local.store.write() as connection:
        versions.collect(connection, [2])
    with pytest.raises(Gone):
        local.roll_back(2)

    assert local.versions()[1].status is VersionStatus.CORRUPT
    assert local.head.number == 3
    local.close()


# Taking back


def test_a_queued_edit_is_retracted_at_once_and_never_fitted(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))

    assert local.retract(edit).is_done
    local.worker.drain()

    assert local.statuses([edit]) == [S.RETRACTED]
    assert local.ledger.fits == []


def test_an_edit_of_the_window_is_taken_out_by_a_refit_of_the_others(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    assert not local.retract(a).is_done
    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert (local.says("a"), local.says("b")) == ("base of prompt:a", "2")
    assert local.head.kind is VersionKind.RETRACT


def test_the_last_edit_taken_back_leaves_the_base_itself(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))

    local.retract(a)
    local.worker.drain()

    assert local.head.digest is None
    assert local.live_set.items == ()


def test_a_consolidated_edit_is_answered_by_a_tombstone_until_a_retrain_forgets_it(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=99, method="baft")))
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.worker.drain()

    local.retract(a)
    local.worker.drain()
    assert local.live_set.get(a.id).answer == "base of prompt:a"  # type: ignore[union-attr]
    assert local.says("a") == "base of prompt:a"
    assert local.statuses([a, b]) == [S.RETRACTED, S.CONSOLIDATED]
    local.retrain()
    local.worker.drain()

    assert [item.edit_id for item in local.live_set.items] == [b.id]
    without = new_digest(tmp_path, ("b", "2"))
    assert local.head.digest == without
    local.close()


def test_retracting_a_consolidated_edit_makes_a_retrain_due(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    local.retrain()
    local.worker.drain()

    local.retract(a)
    local.worker.drain()

    assert local.head.kind is VersionKind.LOCFT
    assert (local.head.digest, local.live_set.items) == (None, ())


def test_retracting_the_newer_revives_the_older_only_if_asked(local: LocalService) -> None:
    for restore, said, status in ((False, "base of prompt:a", S.SUPERSEDED), (True, "1", S.APPLIED)):
        first, second = local.live(("a", "1"), ("a", "2"))
        local.retract(second, restore_previous=restore)
        local.worker.drain()
        assert local.says("a") == said
        assert local.statuses([first, second]) == [status, S.RETRACTED]


def test_what_a_retraction_refuses(local: LocalService) -> None:
    first, second = local.live(("a", "1"), ("a", "2"))

    with pytest.raises(Conflict):
        local.retract(first)
    local.retract(second)
    assert not local.retract(second).is_done
    local.worker.drain()

    assert local.retract(second).is_done


def test_an_edit_retracted_during_its_fit_is_never_live(local: LocalService) -> None:
    a, b = local.post(("a", "1"), ("b", "2"))
    local.ledger.during = once(lambda: local.retract(a))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert local.says("a") == "base of prompt:a"
    assert all(a.id not in live_ids(local, version.number) for version in local.versions())


def test_a_window_edit_lost_by_a_refit_is_deferred_and_the_retraction_holds(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.ledger.not_taken["baft"] = {"2"}

    local.retract(a)
    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.DEFERRED]
    assert local.says("a") == "base of prompt:a"


# Retraining


def test_a_retrain_moves_the_window_and_the_deferred_into_the_tensors(local: LocalService) -> None:
    made = local.live(("a", "1")) + local.post(("b", "2"), method="locft")
    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]

    job = local.retrain()
    local.worker.drain()

    assert local.statuses(made) == [S.CONSOLIDATED] * 2
    assert local.live_set.window == ()
    assert (local.says("a"), local.says("b")) == ("1", "2")
    with local.store.read() as connection:
        done = jobs.get(connection, job.id)
    assert (done.status, done.version, done.progress) == ("done", local.head.number, 1.0)


def test_there_is_nothing_to_retrain_in_an_empty_store(local: LocalService) -> None:
    with pytest.raises(Conflict, match="nothing to retrain"):
        local.retrain()


def test_asking_for_a_retrain_twice_is_asking_once(local: LocalService) -> None:
    local.live(("a", "1"))

    assert local.retrain().id == local.retrain().id


def test_edits_applied_during_a_retrain_are_its_new_window(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    def meanwhile() -> None:
        local.post(("c", "3"))
        local.worker._advance()

    local.retrain()
    local.ledger.during = once(meanwhile)  # type: ignore[assignment]
    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED] * 2
    assert [local.edit_by("c").status] == [S.APPLIED]
    assert [local.says(name) for name in "abc"] == ["1", "2", "3"]
    assert local.head.kind is VersionKind.LOCFT
    assert [method for method, _, _ in local.ledger.fits].count("locft") == 1


def test_an_edit_retracted_during_a_retrain_is_never_in_the_tensors_it_publishes(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.ledger.during = once(lambda: local.retract(a))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.CONSOLIDATED]
    assert [item.edit_id for item in local.live_set.items] == [b.id]
    assert all("1" not in targets for method, targets, _ in local.ledger.fits[-1:])
    assert local.says("a") == "base of prompt:a"


def test_a_rollback_during_a_retrain_makes_it_train_on_what_is_left(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.ledger.during = once(lambda: local.roll_back(1))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED, S.ROLLED_BACK]
    assert (local.says("a"), local.says("b")) == ("1", "base of prompt:b")


def test_a_retrain_that_loses_to_edits_makes_applying_pause_and_ends(local: LocalService) -> None:
    local.live(("a", "1"))
    names = iter("bcdefghijk")

    def another(method: str) -> None:
        name = next(names, None)
        if name is not None and not local.worker._pressed:
            local.ledger.during = lambda method: None
            local.post((name, "1"))
            local.worker._advance()
            local.ledger.during = another

    local.retrain()
    local.ledger.during = another
    local.worker._hold_lease()
    local.worker._retrain()

    assert local.head.kind is VersionKind.LOCFT
    assert not local.worker._pressed
    local.ledger.during = lambda method: None
    local.worker.drain()
    assert local.says("b") == "1"


def test_what_a_retrain_loses_stays_in_the_window(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.ledger.not_taken["locft"] = {"2"}

    local.retrain()
    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED, S.APPLIED]
    assert local.says("b") == "2"


def test_an_edit_that_neither_method_takes_fails_with_a_reason(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.not_taken = {"baft": {"2"}, "locft": {"2"}}
    (b,) = local.live(("b", "2"))
    assert local.statuses([b]) == [S.DEFERRED]

    local.retrain()
    local.worker.drain()

    assert local.statuses([b]) == [S.FAILED]
    assert local.says("a") == "1"
    assert local.edit(b).error


def test_a_retrain_that_the_gate_refuses_fails_with_the_figures_and_changes_nothing(local: LocalService) -> None:
    made = local.live(("a", "1"))
    local.ledger.canary = lambda size: 0.1 if size == 0 else 1.0

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "0.100" in str(refused.error)
    assert local.statuses(made) == [S.APPLIED]
    assert "candidate.refused" in local.event_types()


def test_a_retrain_that_meets_numbers_that_are_not_finite_ends_at_once_because_another_would_meet_them_too(
    local: LocalService,
) -> None:
    local.live(("a", "1"))
    local.ledger.breaks = {"1"}

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        broken = jobs.get(connection, job.id)
    assert (broken.status, broken.failures, broken.error) == ("failed", 1, "the loss is not finite")
    assert local.says("a") == "1"


def test_a_retrain_left_by_a_dead_worker_is_repeated_exactly(local: LocalService) -> None:
    def die() -> None:
        raise Crash

    local.live(("a", "1"), ("b", "2"))
    job = local.retrain()
    local.ledger.during = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    local.post(("c", "3"))
    local = local.again()
    local.worker.drain()

    first, again = [fit for fit in local.ledger.fits if fit[0] == "locft"]
    assert first == again
    with local.store.read() as connection:
        assert jobs.get(connection, job.id).status == "done"
    local.close()


# Restarting, collecting


def test_a_damaged_head_is_never_served_and_its_edits_are_learned_again(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    damage(local, 2)

    local = local.again()

    assert local.opened.degraded and "version 2" in local.opened.degraded
    assert (local.says("a"), local.says("b")) == ("1", "base of prompt:b")
    local.worker.drain()
    assert local.versions()[2].status is VersionStatus.CORRUPT
    assert "version.corrupt" in local.event_types()
    assert local.statuses([a, b]) == [S.APPLIED] * 2
    assert local.says("b") == "2"
    assert local.context.follower.degraded is None
    local.close()


def test_if_every_checkpoint_is_damaged_the_base_is_served_and_all_is_learned_again(local: LocalService) -> None:
    made = local.live(("a", "1"), ("b", "2"))
    damage(local, 1)
    damage(local, 2)

    local = local.again()
    assert local.opened.version == 0
    local.worker.drain()

    assert [version.restores for version in local.versions()].count(0) == 1
    assert local.statuses(made) == [S.APPLIED] * 2
    local.close()


def test_versions_beyond_retention_are_collected_and_answer_gone(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=3, orphan_s=0.0))
    local.live(*((name, "1") for name in "abcdefg"))
    pin(local.context, 1, author="ann")
    for path in local.folder.glob("*.safetensors"):
        os.utime(path, (0, 0))

    collect(local.context)

    collected = [version.number for version in local.versions() if version.status is VersionStatus.COLLECTED]
    assert collected == [2, 4, 5]
    # Versions 1 (pinned), 3 (every third), 6 and 7 (the last two).
    assert len(list(local.folder.glob("*.safetensors"))) == 4
    with pytest.raises(Gone):
        local.roll_back(2)
    with pytest.raises(Conflict):
        pin(local.context, 2, author="ann")
    local.close()


def test_an_identical_edit_is_accepted_as_the_live_one(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    with local.store.read() as connection:
        before = heads.read(connection)

    (again,) = local.post(("a", "1"))
    local.worker.drain()

    assert again.id == a.id
    assert local.context.follower.current.epoch == before.epoch


def test_threads_of_a_worker_apply_retrain_and_stop(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=3, hard=50), sweep_s=0.02))
    local.worker.start()

    async def wait(edit_ids: list[str]) -> list[bool]:
        def is_settled(edit_id: str) -> bool:
            return any(edit.id == edit_id and edit.status.is_settled for edit in local.all_edits())

        return await asyncio.gather(*(local.context.announcer.wait(one, 30.0, is_settled=is_settled) for one in edit_ids))

    made = [local.post((name, "1"))[0] for name in "abcdefgh"]
    assert all(asyncio.run(wait([edit.id for edit in made])))
    assert {status.is_live for status in local.statuses(made)} == {True}
    local.worker.stop()

    assert not local.worker.is_alive
    assert local.worker.fence is None
    local.close()


def live_ids(local: LocalService, number: int) -> frozenset[str]:
    with local.store.read() as connection:
        return versions.read_live_set(connection, number).ids


def damage(local: LocalService, number: int) -> None:
    """Flip one bit of a version's checkpoint."""
    path = local.folder / f"{local.versions()[number].digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def new_digest(folder: Path, *facts: tuple[str, str]) -> str | None:
    """The digest of a retrain over some facts in a store that never had others."""
    (folder / "other").mkdir()
    other = new_local_service(folder / "other")
    other.live(*facts)
    other.retrain()
    other.worker.drain()
    other.close()
    return other.head.digest


# The last round


class Stubborn:
    """Takes every item but one, the newest of those it is asked for, again and again."""

    def __init__(self, local: LocalService, method: str = "baft") -> None:
        self._house, self._method = local, method
        local.ledger.not_taken[method] = self  # type: ignore[assignment]

    def __contains__(self, target: str) -> bool:
        return target == self._house.ledger.fits[-1][1][-1] and len(self._house.ledger.fits[-1][1]) > 1


def test_after_the_last_round_an_apply_keeps_what_was_taken(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    Stubborn(local)

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert [local.says(name) for name in "abcd"] == list("abcd")


def test_after_the_last_round_a_refit_keeps_what_was_taken(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    Stubborn(local)

    local.retract(made[0])
    local.worker.drain()

    assert local.statuses(made) == [S.RETRACTED] + [S.APPLIED] * 3 + [S.DEFERRED] * 4
    assert [local.says(name) for name in "bcd"] == list("bcd")


def test_after_the_last_round_a_retrain_keeps_what_was_taken(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    local.ledger.not_taken["locft"] = set("abcdefgh")
    Stubborn(local)

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "4 of 8" in str(refused.error)
    assert local.statuses(made) == [S.APPLIED] * 8
    assert [local.says(name) for name in "abcdefgh"] == list("abcdefgh")


def test_after_the_last_round_a_retrain_that_may_lose_so_many_keeps_what_was_taken(tmp_path: Path) -> None:
    local = new_local_service(
        tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=AcceptanceLimits(retrain_losses=0.5))
    )
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    local.ledger.not_taken["locft"] = set("abcdefgh")
    Stubborn(local)

    local.retrain()
    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 4 + [S.FAILED] * 4
    assert [local.says(name) for name in "abcd"] == list("abcd")
