"""Newcomers of a retrain: one that costs too much delays neither the others nor the window."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.acceptance import AcceptanceLimits
from service.domain.edit import EditStatus
from service.lifecycle.retrain.newcomers import COSTS_TOO_MUCH
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import PATIENT, LocalService, log_text, new_local_service, retrained

S = EditStatus
COSTLY = "nonsense"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    limits = AcceptanceLimits(far_fall=0.02, far_loss=1.0, retrain_fall=0.1)
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=limits))
    made.ledger.harms = {COSTLY: 0.3}
    yield made
    made.close()


def test_a_costly_newcomer_fails_and_the_retrain_is_published_without_it(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    (bad,) = local.post(("x", COSTLY), method="locft")
    local.worker.drain()

    job = retrained(local)

    assert (job.status, local.statuses([a, bad])) == ("done", [S.CONSOLIDATED, S.FAILED])
    assert local.edit(bad).error == COSTS_TOO_MUCH
    assert local.head.scores["locality"]["far"]["kept"] == 1.0
    assert "once more without 1 of 1 edits" in log_text(job)


def test_live_edits_are_not_excluded_for_a_costly_newcomer(local: LocalService) -> None:
    local.live(*((name, name) for name in "abcdefghijklmnop"))
    (bad,) = local.post(("x", COSTLY), method="locft")
    local.worker.drain()

    retrained(local)

    assert local.statuses([bad]) == [S.FAILED]


def test_of_many_newcomers_halves_are_excluded_until_the_costly_one_is_found(local: LocalService) -> None:
    good = local.post(*((name, name) for name in "abc"), method="locft")
    (bad,) = local.post(("x", COSTLY), method="locft")
    late = local.post(("y", "2"), ("z", "3"), method="locft")
    local.worker.drain()

    jobs = [retrained(local) for _ in range(3)]

    assert [job.status for job in jobs] == ["done"] * 3
    assert local.statuses([*good, bad, *late]) == [S.CONSOLIDATED] * 3 + [S.FAILED] + [S.CONSOLIDATED] * 2


def test_a_retrain_that_is_refused_without_newcomers_fails_no_newcomer(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    (b,) = local.post(("b", "2"), method="locft")
    local.worker.drain()
    local.ledger.far = lambda size: 1.0 if size else 0.5  # whatever is in the tensors

    job = retrained(local)

    assert (job.status, local.statuses([a, b])) == ("failed", [S.APPLIED, S.DEFERRED])
    assert "50%" in (job.error or "")
