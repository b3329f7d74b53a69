"""Taking a store to another base model: what becomes of its edits, its versions and its jobs, whatever moment it is killed at."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.background.evaluations import request_eval
from service.background.exports import request_export
from service.domain.arithmetic import Arithmetic
from service.domain.edit import Edit, EditStatus
from service.domain.errors import Conflict, Gone
from service.lifecycle import crash_points
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.context import LifecycleContext
from service.lifecycle.head_follower import HeadFollower
from service.lifecycle.rebase import Rebase, Refuse, read_rebase, rebase
from service.store import heads, jobs
from service.store.heads import FenceLost
from service.store.migrate import upgrade
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database

S = EditStatus
KINDS = ("sqlite", "postgres")
OTHER_ARITHMETIC = Arithmetic(dtype="bfloat16", dtype_reason="measured", threads=2, threads_reason="measured")


@contextmanager
def service(kind: str, folder: Path) -> Iterator[LocalService]:
    if kind == "sqlite":
        local = new_local_service(folder)
        yield local
        local.close()
        return
    with postgres_database() as url:
        upgrade(url)
        local = LocalService(url, folder / "checkpoints")
        yield local
        local.close()


def holds(_edit: Edit) -> str | None:
    return None


def rebased(local: LocalService, *, to: str = "other", refuse: Refuse = holds) -> bool:
    """Take the store to another base, as the command does: no worker is alive."""
    checkpoints = Checkpoints(local.checkpoints, fingerprint=to)
    follower = HeadFollower(local.store, checkpoints, lambda _: None)
    context = LifecycleContext(store=local.store, checkpoints=checkpoints, follower=follower, clock=local.store.clock)
    with local.store.write() as connection:
        fence = heads.take_lease(connection, "command", lease_s=60.0, is_only_server=True)
    assert fence is not None
    try:
        return rebase(context, name=to, arithmetic=OTHER_ARITHMETIC, refuse=refuse, fence=fence, author="operator")
    finally:
        with local.store.write() as connection:
            heads.release_lease(connection, fence)


def report(local: LocalService) -> Rebase:
    with local.store.read() as connection:
        found = read_rebase(connection)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_arithmetic_that_was_chosen_for_the_new_base_is_pinned_with_it(kind: str, tmp_path: Path) -> None:
    with service(kind, tmp_path) as local:
        assert rebased(local)

        with local.store.read() as connection:
            assert heads.read(connection).arithmetic == OTHER_ARITHMETIC


@pytest.mark.parametrize("kind", KINDS)
def test_live_edits_are_taken_to_the_new_base_by_one_major_retrain(kind: str, tmp_path: Path) -> None:
    with service(kind, tmp_path) as local:
        made = local.live(("a", "1"), ("b", "2"))
        local.retrain("major")
        local.worker.drain()
        made += local.live(("c", "3"))
        before = local.head

        assert rebased(local)
        waiting = local.statuses(made)
        root = local.head
        other = local.again(fingerprint="other")
        assert other.says("a") == "base of prompt:a"
        other.worker.drain()

        assert waiting == [S.DEFERRED] * 3
        assert (root.kind, root.digest, root.parent, root.base_name) == ("base", None, before.number, "other")
        assert other.statuses(made) == [S.CONSOLIDATED] * 3
        assert [other.says(name) for name in "abc"] == ["1", "2", "3"]
        assert [edit.id for edit in report(other).edits] == [edit.id for edit in made]
        with other.store.read() as connection:
            (job,) = [job for job in jobs.read_page(connection, limit=9, kind="retrain") if job.id == report(other).job_id]
        assert (job.status, job.mode, job.author, job.version) == ("done", "major", "operator", root.number + 1)
        assert (other.head.minors, other.head.window) == (0, 0)
        other.close()


def test_versions_of_the_old_base_stay_as_records_and_cannot_be_used(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    before = local.versions()
    rebased(local)
    other = local.again(fingerprint="other")
    other.worker.drain()

    after = other.versions()
    assert [(version.number, version.digest, version.base_name) for version in after[:3]] == [
        (version.number, version.digest, "ledger") for version in before
    ]
    assert {version.base_name for version in after[3:]} == {"other"}
    for number in (0, 1, 2):
        with pytest.raises(Gone, match="another base model, ledger"):
            other.says("a", version=number)
        with pytest.raises(Gone, match="another base model"):
            other.roll_back(number)
        with pytest.raises(Gone, match="another base model"):
            request_export(other.store, other.exports, version=number, author="ann")
        with pytest.raises(Gone, match="another base model"):
            request_eval(other.store, version=number, selection="live", author="ann")
    other.roll_back(3)
    assert other.says("a") == "base of prompt:a"
    other.close()


def test_a_rebase_is_done_once(local: LocalService) -> None:
    local.live(("a", "1"))

    assert rebased(local)
    first = report(local)
    assert not rebased(local)

    assert report(local) == first
    assert [version.kind for version in local.versions()] == ["base", "baft", "base"]
    assert local.event_types().count("base.changed") == 1


def test_a_store_comes_back_to_its_first_base_as_to_any_other(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    rebased(local)
    other = local.again(fingerprint="other")
    other.worker.drain()
    rebased(other, to="base")
    back = other.again(fingerprint="base")
    back.worker.drain()

    assert back.says("a") == "1" and back.edit(a).status is S.CONSOLIDATED
    assert [version.base_name for version in back.versions()] == ["ledger", "ledger", "other", "other", "base", "base"]
    with pytest.raises(Gone, match="another base model, other"):
        back.says("a", version=3)
    assert back.says("a", version=1) == "1"  # the same weights, whichever name the store gave them
    back.close()


def test_edits_that_the_new_base_cannot_hold_fail_with_the_reason_and_the_others_go_on(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    (waiting,) = local.post(("c", "3"))
    (deferred,) = local.post(("d", "4"), method="locft")

    rebased(local, refuse=lambda edit: "prompt: too long" if edit.prompt in "bcd" else None)
    assert local.statuses([a, b, waiting, deferred]) == [S.DEFERRED, S.FAILED, S.FAILED, S.FAILED]
    other = local.again(fingerprint="other")
    other.worker.drain()

    assert other.says("a") == "1" and other.says("b") == "base of prompt:b"
    assert other.edit(b).error == "it does not fit the new base model: prompt: too long"
    assert {edit.id for edit in report(other).edits} == {a.id, b.id, waiting.id, deferred.id}
    other.close()


def test_waiting_edits_wait_on_and_are_applied_on_the_new_base(local: LocalService) -> None:
    local.live(("a", "1"))
    (waiting,) = local.post(("b", "2"))
    (deferred,) = local.post(("c", "3"), method="locft")

    rebased(local)
    assert local.statuses([waiting, deferred]) == [S.QUEUED, S.DEFERRED]
    other = local.again(fingerprint="other")
    other.worker.drain()

    assert [other.says(name) for name in "abc"] == ["1", "2", "3"]
    other.close()


def test_a_requested_retraction_is_done_and_what_it_brings_back_is_taken(local: LocalService) -> None:
    first, second, third = local.live(("a", "1"), ("a", "2"), ("b", "3"))
    local.retract(second, restore_previous=True)
    local.retract(third)

    rebased(local)
    assert local.statuses([first, second, third]) == [S.DEFERRED, S.RETRACTED, S.RETRACTED]
    other = local.again(fingerprint="other")
    other.worker.drain()

    assert other.says("a") == "1" and other.says("b") == "base of prompt:b"
    other.close()


def test_what_would_go_on_from_the_old_base_is_cancelled(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    old = local.retrain("minor")

    rebased(local)
    other = local.again(fingerprint="other")
    other.worker.drain()

    with other.store.read() as connection:
        ended = jobs.get(connection, old.id)
    assert (ended.status, ended.error) == ("cancelled", "the store was taken to another base model")
    assert other.head.base_name == "other" and other.says("a") == "1"
    other.close()


def test_a_store_without_edits_needs_no_retrain(local: LocalService) -> None:
    assert rebased(local)

    assert (report(local).job_id, report(local).edits) == (None, ())


def test_an_edit_with_which_the_retrain_is_not_accepted_is_left_out_with_the_reason(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    rebased(local)
    local.ledger.harms["2"] = 0.9
    other = local.again(fingerprint="other")
    other.worker.drain()
    assert other.statuses([a, b]) == [S.CONSOLIDATED, S.DEFERRED]  # the newer half of the edits waits for the next one
    other.retrain()
    other.worker.drain()

    assert other.statuses([a, b]) == [S.CONSOLIDATED, S.FAILED]
    assert other.edit(b).error == "a retrain with it was not accepted, and the same one without it was"
    other.close()


def test_a_process_with_the_old_base_goes_on_with_its_version_and_changes_nothing(tmp_path: Path) -> None:
    with service("postgres", tmp_path) as local:
        (a,) = local.live(("a", "1"))
        fence = local.worker.fence
        rebased(local)
        local.worker.drain()

        assert local.says("a") == "1" and local.context.follower.current.version == 1
        assert local.context.follower.degraded is not None and "another base model" in local.context.follower.degraded
        assert local.edit(a).status is S.DEFERRED
        with pytest.raises(Conflict, match="another base model"):
            local.roll_back(1)
        with pytest.raises(FenceLost), local.store.write() as connection:
            heads.check_fence(connection, fence)
        assert [version.number for version in local.versions()] == [0, 1, 2]


def test_a_worker_that_was_overtaken_ends_a_rebase(local: LocalService) -> None:
    local.live(("a", "1"))
    checkpoints = Checkpoints(local.checkpoints, fingerprint="other")
    follower = HeadFollower(local.store, checkpoints, lambda _: None)
    context = LifecycleContext(store=local.store, checkpoints=checkpoints, follower=follower)
    old = local.worker.fence
    assert old is not None
    with local.store.write() as connection:
        heads.take_lease(connection, "another", lease_s=60.0, is_only_server=True)

    with pytest.raises(FenceLost):
        rebase(context, name="other", arithmetic=OTHER_ARITHMETIC, refuse=holds, fence=old, author="operator")
    assert local.head.number == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["rebase.before_commit", "rebase.after_commit", "retrain.middle", "publish.before_commit"])
def test_a_rebase_killed_at_any_point_is_finished_by_the_next_one(kind: str, point: str, tmp_path: Path) -> None:
    with service(kind, tmp_path) as local:
        made = local.live(("a", "1"), ("b", "2"))
        local.close()

        assert dies_rebasing(local, point)

        left = LocalService(local.url, local.folder, fingerprint="base" if point == "rebase.before_commit" else "other")
        rebased(left)
        other = left.again(fingerprint="other")
        other.worker.drain()
        assert other.statuses(made) == [S.CONSOLIDATED] * 2
        assert [other.says(name) for name in "ab"] == ["1", "2"]
        assert [version.number for version in other.versions()] == [0, 1, 2, 3, 4]
        assert [edit.id for edit in report(other).edits] == [edit.id for edit in made]
        other.close()


def dies_rebasing(local: LocalService, point: str) -> bool:
    """Rebase, and let a server on the new base do the retrain, in a process that kills itself at a point."""
    child = os.fork()
    if child == 0:
        try:
            again = LocalService(local.url, local.folder)
            crash_points.arm(point)
            rebased(again)
            LocalService(local.url, local.folder, fingerprint="other").worker.drain()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
