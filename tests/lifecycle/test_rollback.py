"""Rolling back: the version that is published, the edits that leave the live set, and the refusals."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Corrupt, Gone, NotFound, Stale
from service.domain.version import VersionStatus
from service.store import versions
from tests.lifecycle.local_service import LocalService, flip_bit, once

S = EditStatus


def test_a_rollback_publishes_the_old_overlay_under_a_new_number(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    done = local.roll_back(1)

    assert (done.version, done.restored, done.epoch, done.rolled_back) == (3, 1, 3, (b.id,))
    assert local.statuses([a, b]) == [S.APPLIED, S.ROLLED_BACK]
    assert local.head.kind == "rollback"
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


def test_a_rollback_restores_edits_superseded_after_its_version(local: LocalService) -> None:
    first, second = local.live(("a", "1"), ("a", "2"))

    local.roll_back(1)

    assert local.statuses([first, second]) == [S.APPLIED, S.ROLLED_BACK]
    assert local.edit(first).superseded_by is None


def test_a_rollback_with_requeue_applies_the_rolled_back_edits_again(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    local.roll_back(0, requeue=True)
    assert local.statuses([a, b]) == [S.QUEUED] * 2
    local.worker.drain()

    assert local.statuses([a, b]) == [S.APPLIED] * 2
    assert (local.says("a"), local.says("b")) == ("1", "2")


@pytest.mark.parametrize("consolidated", [False, True])
def test_a_rollback_does_not_restore_edits_retracted_since(local: LocalService, consolidated: bool) -> None:
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


def test_a_fit_during_a_rollback_is_repeated_on_the_new_head(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    (c,) = local.post(("c", "3"))
    local.ledger.during_fit = once(lambda: local.roll_back(1))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, c]) == [S.APPLIED] * 2
    assert (local.says("a"), local.says("b"), local.says("c")) == ("1", "base of prompt:b", "3")
    assert [version.parent for version in local.versions()[1:]] == [0, 1, 2, 3]


def test_a_rollback_refuses_the_head_unknown_versions_and_another_epoch(local: LocalService) -> None:
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


def test_a_rollback_to_damaged_or_collected_bytes_is_refused(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"), ("c", "3"))
    flip_bit(local, 1)
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
