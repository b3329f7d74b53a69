"""Damaged checkpoints of the head and of its ancestors, at the opening of a store."""

from service.domain.edit import EditStatus
from service.domain.version import VersionStatus
from tests.lifecycle.local_service import LocalService, flip_bit

S = EditStatus


def test_a_damaged_head_is_never_served_and_its_edits_are_applied_again(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    flip_bit(local, 2)

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


def test_if_every_checkpoint_is_damaged_the_base_answers_and_all_edits_are_applied_again(local: LocalService) -> None:
    made = local.live(("a", "1"), ("b", "2"))
    flip_bit(local, 1)
    flip_bit(local, 2)

    local = local.again()
    assert local.opened.version == 0
    local.worker.drain()

    assert [version.restores for version in local.versions()].count(0) == 1
    assert local.statuses(made) == [S.APPLIED] * 2
    local.close()
