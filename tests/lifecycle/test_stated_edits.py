"""The context tier: edits that no version carries yet are stated by the version that answers, and by no other."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.background.purge import purge
from service.domain.context_tier import ContextMode, ContextTier
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Gone
from service.domain.version import CONTEXT
from service.lifecycle import crash_points
from service.lifecycle.context_versions import publish_stated
from service.lifecycle.settings import LifecycleSettings
from service.store import events, stated_edits, versions
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, once

ON = ContextTier(mode="on")


def settings(tier: ContextTier) -> LifecycleSettings:
    return LifecycleSettings(cadence=PATIENT, tier=tier)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LocalService]:
    made: list[LocalService] = []

    def make_service(tier: ContextTier = ON) -> LocalService:
        made.append(new_local_service(tmp_path, settings=settings(tier)))
        return made[-1]

    yield make_service  # type: ignore[misc]
    for service in made:
        service.close()


def stated_by(local: LocalService, version: int | None = None) -> list[str]:
    """The prompts of the edits that a version states; None: the head."""
    with local.store.read() as connection:
        number = local.head.number if version is None else version
        return [edit.prompt for edit in stated_edits.read(connection, number)]


def answered_here(local: LocalService) -> list[str]:
    """The prompts of the edits that this process states."""
    return [edit.prompt for edit in local.context.follower.current.stated]


def test_an_accepted_edit_is_stated_at_once_and_no_more_when_it_is_live(make: Callable[..., LocalService]) -> None:
    local = make()
    (edit,) = local.post(("a", "1"))

    version = publish_stated(local.context)

    assert version is not None
    assert (version.kind, version.parent, version.digest, version.edits_counted) == (CONTEXT, 0, None, 0)
    assert stated_by(local) == answered_here(local) == ["a"]
    assert local.edit(edit).status is EditStatus.QUEUED
    assert publish_stated(local.context) is None, "the head states it already"

    local.worker.drain()

    assert local.edit(edit).status is EditStatus.APPLIED
    assert (stated_by(local), stated_by(local, 1)) == ([], ["a"])
    assert answered_here(local) == []


def test_without_a_context_tier_no_version_states_anything(make: Callable[..., LocalService]) -> None:
    local = make(ContextTier())
    local.post(("a", "1"), method="locft")
    local.worker.drain()

    assert [version.kind for version in local.versions()] == ["base"]


@pytest.mark.parametrize(("mode", "stated"), [("deferred", ["late"]), ("on", ["late", "soon"])])
def test_the_mode_says_which_waiting_edits_are_stated(
    make: Callable[..., LocalService], mode: ContextMode, stated: list[str]
) -> None:
    local = make(ContextTier(mode=mode))
    local.post(("late", "1"), method="locft")
    local.post(("soon", "2"))

    publish_stated(local.context)

    assert stated_by(local) == stated


def test_the_worker_states_what_no_request_stated_and_withdraws_when_the_tier_is_off(make: Callable[..., LocalService]) -> None:
    local = make()
    local.post(("a", "1"), method="locft")
    local.worker.drain()
    assert stated_by(local) == ["a"]

    local = local.again(settings=settings(ContextTier()))
    local.worker.drain()

    assert stated_by(local) == []
    local.close()


def test_of_one_fact_the_last_correction_is_stated_unless_a_later_one_is_live(make: Callable[..., LocalService]) -> None:
    local = make()
    (old,) = local.post(("a", "1"), method="locft")
    local.live(("a", "2"))
    assert local.edit(old).status is EditStatus.SUPERSEDED
    local.post(("b", "1"), ("c", "1"), method="locft")
    local.post(("b", "2"), method="locft")

    publish_stated(local.context)

    with local.store.read() as connection:
        stated = stated_edits.read(connection, local.head.number)
    assert [(edit.prompt, edit.target) for edit in stated] == [("c", "1"), ("b", "2")]


def test_at_most_so_many_are_stated_the_newest_and_none_that_is_too_long(make: Callable[..., LocalService]) -> None:
    local = make(replace(ON, most=2, characters=10))
    local.post(("a", "1"), ("b", "2"), ("c", "3"), ("a long prompt", "4"), method="locft")

    publish_stated(local.context)

    assert stated_by(local) == ["b", "c"]


def test_a_retraction_takes_a_statement_back_and_a_pinned_version_keeps_it(make: Callable[..., LocalService]) -> None:
    local = make()
    edit, _ = local.post(("a", "1"), ("b", "2"), method="locft")
    publish_stated(local.context)

    local.retract(edit)
    publish_stated(local.context)

    assert (stated_by(local, 1), stated_by(local, 2)) == (["a", "b"], ["b"])


def test_a_rollback_states_what_the_restored_version_stated_and_withdraws_the_rest(make: Callable[..., LocalService]) -> None:
    local = make()
    kept, dropped = local.post(("kept", "1"), ("dropped", "2"), method="locft")
    publish_stated(local.context)
    local.post(("later", "3"), method="locft")
    publish_stated(local.context)
    local.retract(dropped)

    local.roll_back(1)

    assert stated_by(local) == answered_here(local) == ["kept"]
    assert publish_stated(local.context) is None, "what was withdrawn stays withdrawn"
    local.post(("newest", "4"), method="locft")
    local.worker.drain()
    assert stated_by(local) == ["kept", "newest"]
    assert local.edit(kept).status is EditStatus.DEFERRED


def test_what_a_rollback_restored_is_stated_again_when_a_later_correction_of_it_is_gone(
    make: Callable[..., LocalService],
) -> None:
    local = make()
    local.post(("a", "1"), method="locft")
    publish_stated(local.context)
    local.post(("b", "1"), method="locft")
    publish_stated(local.context)
    local.roll_back(1)
    (later,) = local.post(("a", "2"), method="locft")
    publish_stated(local.context)
    assert stated_by(local) == ["a"]

    local.retract(later)
    publish_stated(local.context)

    with local.store.read() as connection:
        assert [edit.target for edit in stated_edits.read(connection, local.head.number)] == ["1"]


def test_switching_the_tier_off_and_on_states_what_it_did_and_not_what_was_withdrawn(make: Callable[..., LocalService]) -> None:
    local = make()
    local.post(("a", "1"), method="locft")
    publish_stated(local.context)
    local.post(("b", "1"), method="locft")
    publish_stated(local.context)
    local.roll_back(1)
    for tier, stated in ((ContextTier(), []), (ON, ["a"])):
        local = local.again(settings=settings(tier))
        publish_stated(local.context)
        assert stated_by(local) == stated

    local.roll_back(2)

    assert stated_by(local) == ["a", "b"], "the version that is restored stated it"
    local.close()


def test_a_rollback_while_the_tier_is_off_withdraws_nothing(make: Callable[..., LocalService]) -> None:
    local = make(ContextTier())
    local.live(("x", "1"))
    local.post(("a", "1"), method="locft")
    local.roll_back(0)

    local = local.again(settings=settings(ON))
    publish_stated(local.context)

    assert stated_by(local) == ["a"]
    local.close()


def test_an_edit_that_is_only_withdrawn_is_purged_without_its_versions(make: Callable[..., LocalService]) -> None:
    local = make()
    publish_stated(local.context)
    local.live(("x", "1"))
    (edit,) = local.post(("a", "1"), method="locft")
    publish_stated(local.context)
    stating = local.head.number
    local.roll_back(stating - 1)
    local.retract(edit)

    report = purge(local.context, edit_ids=[edit.id], by="ann", exports=local.exports)

    assert report.versions == (stating,)
    assert local.says("x") == "1"


def test_a_fit_goes_on_while_other_edits_are_stated(make: Callable[..., LocalService]) -> None:
    local = make()
    (first,) = local.post(("a", "1"))

    def state_another() -> None:
        local.post(("b", "2"))
        publish_stated(local.context)

    local.ledger.during_fit = once(state_another)  # type: ignore[assignment]
    publish_stated(local.context)
    local.worker.step()

    assert len(local.ledger.fits) == 1, "the fit was begun again"
    assert local.edit(first).status is EditStatus.APPLIED
    assert [version.kind for version in local.versions()] == ["base", "context", "context", "baft"]
    assert stated_by(local) == ["b"]


def test_every_new_statement_is_an_event_of_its_edit(make: Callable[..., LocalService]) -> None:
    local = make()
    first, second = local.post(("a", "1"), ("b", "2"), method="locft")
    publish_stated(local.context)
    local.retract(second)
    publish_stated(local.context)

    with local.store.read() as connection:
        of_first = [(event["type"], event["version"]) for event in events.read_page(connection, limit=100, edit_id=first.id)]
    assert of_first == [("edit.accepted", None), ("edit.stated", 1)]


def test_a_purge_removes_the_versions_that_stated_an_edit(make: Callable[..., LocalService]) -> None:
    local = make()
    (edit,) = local.post(("a", "1"), method="locft")
    publish_stated(local.context)
    local.retract(edit)
    with pytest.raises(Conflict, match="states an edit"):
        purge(local.context, edit_ids=[edit.id], by="ann", exports=local.exports)
    publish_stated(local.context)

    report = purge(local.context, edit_ids=[edit.id], by="ann", exports=local.exports)

    assert report.versions == (1,)
    with local.store.read() as connection:
        assert stated_edits.read_ids(connection, 1) == ()
        with pytest.raises(Gone):
            local.context.checkpoints.get_overlay(versions.get(connection, 1))


@pytest.mark.parametrize("point", ["context.before_commit", "context.after_commit"])
def test_a_process_killed_while_it_states_leaves_nothing_undone(point: str, tmp_path: Path) -> None:
    def make_service() -> LocalService:
        return LocalService(f"sqlite:///{tmp_path / 'errata.db'}", tmp_path / "checkpoints", settings=settings(ON))

    new_local_service(tmp_path).close()
    child = os.fork()
    if child == 0:
        local = make_service()
        local.post(("a", "1"), method="locft")
        crash_points.arm(point)
        publish_stated(local.context)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    local = make_service()
    local.worker.drain()

    assert stated_by(local) == answered_here(local) == ["a"]
    assert [version.kind for version in local.versions()] == ["base", "context"]
    local.close()
