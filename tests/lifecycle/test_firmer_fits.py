"""An edit that would cost the rest of the model too much is fitted again, more firmly, in the same job, before it is deferred."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.domain.acceptance import AcceptanceLimits
from service.domain.edit import ANYWAY, EditStatus
from service.editors.protocol import FitFailed
from service.lifecycle import job_hooks
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs, versions
from tests.lifecycle.ledger import Ledger
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service

S = EditStatus
HARMFUL = "nonsense"
FIT_S = 2.0
LIMITS = AcceptanceLimits(far_fall=0.05, far_loss=0.2)

Make = Callable[..., LocalService]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A service whose fits do a tenth of the harm with each step of firmness."""
    made: list[LocalService] = []

    def build(harm: float = 0.3, *, firmest: int = 2, firmer: int = 1, held: float = 0.1) -> LocalService:
        ledger = Ledger(firmest=firmest, held=held, harms={HARMFUL: harm})
        settings = LifecycleSettings(cadence=PATIENT, acceptance=LIMITS, firmer=firmer, fit_s=FIT_S)
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(new_local_service(folder, ledger=ledger, settings=settings))
        return made[-1]

    yield build
    for local in made:
        local.close()


def targets(local: LocalService) -> list[tuple[str, ...]]:
    return [fitted for _, fitted, _ in local.ledger.fits]


def head_scores(local: LocalService) -> dict[str, object]:
    with local.store.read() as connection:
        return dict(versions.get(connection, local.context.follower.current.version).scores)


def test_a_refused_edit_is_held_more_firmly_and_published_by_the_same_job(make: Make) -> None:
    local = make()
    (edit,) = local.live(("b", HARMFUL))

    assert (local.statuses([edit]), local.says("b")) == ([S.APPLIED], HARMFUL)
    assert targets(local) == [(HARMFUL,), (HARMFUL,)]
    assert local.edit(edit).deferral is None
    assert head_scores(local)["firmness"] == 1
    assert head_scores(local)["locality"]["far"]["kept"] == pytest.approx(0.97)  # type: ignore[index]


def test_an_accepted_edit_is_fitted_once(make: Make) -> None:
    local = make()
    local.live(("a", "1"))

    assert targets(local) == [("1",)] and "firmness" not in head_scores(local)


@pytest.mark.parametrize(("firmest", "firmer", "fits"), [(2, 0, 1), (0, 1, 1), (2, 1, 2), (2, 2, 3), (1, 2, 2)])
def test_an_edit_that_stays_too_costly_is_deferred_with_the_figures_of_the_firmest_fit(
    make: Make, firmest: int, firmer: int, fits: int
) -> None:
    local = make(0.9, firmest=firmest, firmer=firmer, held=0.9)
    (edit,) = local.live(("b", HARMFUL))

    found = local.edit(edit)
    assert len(local.ledger.fits) == fits
    assert found.status is S.DEFERRED and found.deferral is not None
    assert found.deferral.figures["far"]["value"] == pytest.approx(0.9 * 0.9 ** (fits - 1))
    assert found.deferral.tries == 1


def test_an_edit_that_would_lose_live_edits_is_not_fitted_more_firmly(make: Make) -> None:
    local = make()
    local.live(("a", "1"))
    local.ledger.displacing_targets = {HARMFUL}
    (edit,) = local.live(("b", HARMFUL))

    assert local.statuses([edit]) == [S.DEFERRED] and targets(local) == [("1",), (HARMFUL,)]


def test_an_edit_whose_scores_are_not_finite_is_not_fitted_more_firmly(make: Make) -> None:
    local = make()
    local.ledger.far = lambda size: math.nan
    local.live(("a", "1"))

    assert len(local.ledger.fits) == 1


def test_edits_of_one_job_are_parted_before_one_is_fitted_more_firmly(make: Make) -> None:
    local = make()
    made = local.post(("a", "1"), ("b", HARMFUL))
    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.APPLIED]
    assert targets(local) == [("1", HARMFUL), ("1",), (HARMFUL,), (HARMFUL,)]


def test_an_edit_that_is_accepted_anyway_does_the_least_harm_that_it_can(make: Make) -> None:
    local = make(0.9)
    (edit,) = local.post(("b", HARMFUL), accept=ANYWAY)
    local.worker.drain()

    assert local.statuses([edit]) == [S.APPLIED] and head_scores(local)["firmness"] == 1
    assert head_scores(local)["locality"]["far"]["kept"] == pytest.approx(0.91)  # type: ignore[index]


def overdue_in(local: LocalService, fit: int) -> None:
    """The fit number `fit` does not end in time."""

    def wait(_method: str) -> None:
        if len(local.ledger.fits) == fit:
            time.sleep(local.settings.fit_s + 0.1)

    local.ledger.during_fit = wait


def lost_in(local: LocalService, fit: int) -> None:
    """The fit number `fit` does not take its edit."""

    def lose(_method: str) -> None:
        if len(local.ledger.fits) == fit:
            local.ledger.not_taken["baft"] = {HARMFUL}

    local.ledger.during_fit = lose


def failed_in(local: LocalService, fit: int) -> None:
    """The fit number `fit` meets numbers that are not finite."""

    def fail(_method: str) -> None:
        if len(local.ledger.fits) == fit:
            raise FitFailed("the loss is not finite")

    local.ledger.during_fit = fail


def displaced_in(local: LocalService, fit: int) -> None:
    """The fit number `fit` loses a live edit."""

    def displace(_method: str) -> None:
        if len(local.ledger.fits) == fit:
            local.ledger.displacing_targets = {HARMFUL}

    local.ledger.during_fit = displace


BREAKS = [overdue_in, lost_in, failed_in, displaced_in]


@pytest.mark.parametrize("break_fit", BREAKS)
def test_an_edit_whose_firmer_fit_comes_to_nothing_is_deferred_by_the_first(
    make: Make, break_fit: Callable[[LocalService, int], None]
) -> None:
    local = make()
    local.live(("a", "1"))
    break_fit(local, 3)
    (edit,) = local.live(("b", HARMFUL))

    found = local.edit(edit)
    assert targets(local) == [("1",), (HARMFUL,), (HARMFUL,)]
    assert (found.status, local.says("a")) == (S.DEFERRED, "1") and found.deferral is not None
    assert found.deferral.figures["far"]["value"] == pytest.approx(0.3) and "firmly" not in found.deferral.reason


@pytest.mark.parametrize("break_fit", BREAKS)
def test_an_edit_that_is_accepted_anyway_is_published_whatever_becomes_of_its_firmer_fit(
    make: Make, break_fit: Callable[[LocalService, int], None]
) -> None:
    local = make()
    local.live(("a", "1"))
    break_fit(local, 3)
    (edit,) = local.post(("b", HARMFUL), accept=ANYWAY)
    local.worker.drain()

    assert (local.statuses([edit]), local.says("a"), local.says("b")) == ([S.APPLIED], "1", HARMFUL)
    assert "firmness" not in head_scores(local)
    assert head_scores(local)["locality"]["far"]["kept"] == pytest.approx(0.7)  # type: ignore[index]


def test_a_deferral_and_the_log_of_its_job_say_that_the_edit_was_held_more_firmly(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_hooks, "PROGRESS_INTERVAL_S", 0.0)
    local = make(0.9, held=0.9)
    (edit,) = local.live(("b", HARMFUL))

    found = local.edit(edit)
    assert found.deferral is not None and "also with the rest held more firmly" in found.deferral.reason
    with local.store.read() as connection:
        log = [str(line["message"]) for job in jobs.read_page(connection, limit=9) for line in job.log]
    assert "baft" in log and "baft, more firmly" in log


@contextmanager
def broken_once(local: LocalService, fit: int) -> Iterator[None]:
    """A process that dies in its fit number `fit`."""

    def break_off(_method: str) -> None:
        if len(local.ledger.fits) == fit:
            raise KeyboardInterrupt

    local.ledger.during_fit = break_off
    with pytest.raises(KeyboardInterrupt):
        yield
    local.ledger.during_fit = lambda _method: None


def test_a_job_that_is_repeated_after_a_crash_takes_the_same_way(make: Make) -> None:
    whole, broken = make(), make()
    whole.live(("b", HARMFUL))
    with broken_once(broken, 2):
        broken.live(("b", HARMFUL))
    broken.worker.drain()

    assert targets(broken) == [(HARMFUL,)] * 4
    assert head_scores(broken) == head_scores(whole) and broken.says("b") == HARMFUL
