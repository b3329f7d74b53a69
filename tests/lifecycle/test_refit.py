"""Refitting the window after a retraction: edits that leave it, tombstones, restored edits and lost ones."""

from pathlib import Path

from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import LocalService, LoseNewest, new_local_service

S = EditStatus


def test_a_window_edit_is_retracted_by_a_refit_of_the_others(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    assert not local.retract(a).is_done
    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert (local.says("a"), local.says("b")) == ("base of prompt:a", "2")
    assert local.head.kind == "retract"


def test_retracting_the_last_edit_leaves_the_base(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))

    local.retract(a)
    local.worker.drain()

    assert local.head.digest is None
    assert local.live_set.items == ()


def test_a_retracted_consolidated_edit_has_a_tombstone_until_a_major_retrain(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=99, hard=99, automatic=False)))
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


def test_retracting_the_newer_edit_restores_the_older_only_if_asked(local: LocalService) -> None:
    for restore, said, status in ((False, "base of prompt:a", S.SUPERSEDED), (True, "1", S.APPLIED)):
        first, second = local.live(("a", "1"), ("a", "2"))
        local.retract(second, restore_previous=restore)
        local.worker.drain()
        assert local.says("a") == said
        assert local.statuses([first, second]) == [status, S.RETRACTED]


def test_a_window_edit_lost_by_a_refit_is_deferred_and_the_retraction_holds(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.ledger.not_taken["baft"] = {"2"}

    local.retract(a)
    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.DEFERRED]
    assert local.says("a") == "base of prompt:a"


def test_after_the_last_round_a_refit_publishes_the_edits_that_were_not_lost(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    LoseNewest(local)

    local.retract(made[0])
    local.worker.drain()

    assert local.statuses(made) == [S.RETRACTED] + [S.APPLIED] * 3 + [S.DEFERRED] * 4
    assert [local.says(name) for name in "bcd"] == list("bcd")


def new_digest(folder: Path, *facts: tuple[str, str]) -> str | None:
    """The digest of a retrain over some facts in a store that never had others."""
    (folder / "other").mkdir()
    other = new_local_service(folder / "other")
    other.live(*facts)
    other.retrain()
    other.worker.drain()
    other.close()
    return other.head.digest
