"""The worker's threads beside each other: the head is followed while a fit runs, and what a retrain sets free is used at once."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, once

MANUAL = LifecycleSettings(cadence=replace(PATIENT, automatic=False), follow_s=0.01, sweep_s=0.05)


def comes(true: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + within_s
    while not true() and time.monotonic() < until:
        time.sleep(0.005)
    return true()


def test_a_rollback_by_another_process_is_followed_during_a_fit_and_stops_it(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=MANUAL)
    local.live(("a", "1"), ("a", "2"))
    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=MANUAL, alone=False)
    followed = []

    def meanwhile() -> None:
        other.roll_back(1)
        followed.append(comes(lambda: local.says("a") == "1"))

    local.ledger.during_fit = once(meanwhile)  # type: ignore[assignment]
    local.worker.follow_loop.start()
    local.worker.start()
    (z,) = local.post(("z", "9"))
    applied = comes(lambda: local.edit(z).status == "applied")
    local.worker.stop()
    local.worker.follow_loop.stop()

    assert followed == [True] and applied
    fits = [items for _, items, _ in local.ledger.fits if items == ("9",)]
    assert len(fits) == 2  # the first was in vain
    assert (local.says("a"), local.says("z")) == ("1", "9")
    other.close()
    local.close()


def test_the_end_of_a_retrain_wakes_the_worker_for_waiting_edits(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=replace(MANUAL, sweep_s=60.0))
    local.live(("a", "1"))
    local.retrain()
    local.worker._hold_lease()
    thread = threading.Thread(target=local.worker._retrain_loop)
    thread.start()

    rung = local.worker._doorbell.wait(10.0)

    assert rung and local.head.kind == "locft"
    local.worker.stop()
    thread.join(10.0)
    local.close()


def test_waiting_calls_are_woken_by_a_change_and_not_by_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = new_local_service(tmp_path, settings=MANUAL)
    (edit,) = local.live(("a", "1"))
    told: list[str] = []
    monkeypatch.setattr(local.context.announcer, "awaited_ids", lambda: (edit.id,))
    monkeypatch.setattr(local.context.announcer, "announce", told.extend)

    for _ in range(3):
        local.worker.follow_loop.step()
    assert told == [edit.id]

    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=MANUAL, alone=False)
    other.roll_back(0)
    told.clear()
    for _ in range(3):
        local.worker.follow_loop.step()
    assert told == [edit.id]
    other.close()
    local.close()


def test_a_process_follows_a_head_that_another_process_moved(local: LocalService) -> None:
    other = LocalService(local.url, local.folder, alone=False)

    local.live(("a", "1"))
    other.worker.step()

    assert other.worker.fence is None
    assert other.says("a") == "1"
    assert other.context.follower.current.epoch == local.context.follower.current.epoch
    other.close()
