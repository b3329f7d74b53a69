"""A retrain beside fits of edits: it waits for them between its steps, and is not stopped by many of them."""

from dataclasses import replace

import pytest

from service.lifecycle import job_hooks
from service.lifecycle.context import EditFitsIdle
from service.lifecycle.job_hooks import EDIT_FIT_WAIT_S, WORK_BETWEEN_WAITS_S, JobHooks
from service.lifecycle.lease import Lease
from tests.lifecycle.local_service import LocalService


class WorkClock:
    """Time that passes only while somebody works or waits."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class CountedFits(EditFitsIdle):
    """Counts the seconds that are waited for fits; one ends only by `end_s`."""

    def __init__(self, clock: WorkClock) -> None:
        super().__init__()
        self.clock, self.waited, self.end_s = clock, 0.0, 1e9

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        waits = min(timeout, self.end_s)
        self.waited += waits
        self.clock.now += waits
        return self.end_s <= timeout


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WorkClock:
    made = WorkClock()
    monkeypatch.setattr(job_hooks, "time", made)
    return made


def watch(local: LocalService, fits: CountedFits, **changes: bool) -> JobHooks:
    return JobHooks(replace(local.context, edit_fits_idle=fits), Lease(fence=1), "job", "retrain.middle", **changes)


def test_a_retrain_waits_for_an_edit_at_its_first_step_beside_it(local: LocalService, clock: WorkClock) -> None:
    fits, step_s = CountedFits(clock), 0.02
    hooks = watch(local, fits, yields_to_edits=True).hooks()
    for _ in range(3):
        hooks.begin_step()
        clock.now += step_s
    before = fits.waited

    with fits.busy():
        fits.end_s = 0.8
        hooks.begin_step()

    assert before == 0.0
    assert fits.waited == 0.8


def test_a_retrain_has_its_share_beside_edits_without_end(local: LocalService, clock: WorkClock) -> None:
    fits, step_s, steps = CountedFits(clock), WORK_BETWEEN_WAITS_S / 10, 100
    hooks = watch(local, fits, yields_to_edits=True).hooks()

    with fits.busy():
        for _ in range(steps):
            hooks.begin_step()
            clock.now += step_s

    worked = steps * step_s
    assert fits.waited == pytest.approx(worked * EDIT_FIT_WAIT_S / WORK_BETWEEN_WAITS_S, rel=0.15)


def test_a_fit_of_edits_waits_for_no_other(local: LocalService, clock: WorkClock) -> None:
    fits = CountedFits(clock)
    hooks = watch(local, fits).hooks()

    with fits.busy():
        hooks.begin_step()

    assert fits.waited == 0.0
