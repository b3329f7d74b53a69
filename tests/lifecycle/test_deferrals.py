"""A deferred edit keeps why, with figures, how often it was tried, and says when it is tried next."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.deferral import Deferral
from service.domain.edit import Edit, EditStatus
from service.domain.next_try import NextTry
from service.lifecycle.next_tries import read_next_tries
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs
from tests.lifecycle.local_service import MANUAL, PATIENT, LocalService, local_services, new_local_service, retrained

S = EditStatus
HARMFUL = "nonsense"
LIMITS = AcceptanceLimits(far_fall=0.05, far_loss=0.2)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=LIMITS))
    made.ledger.harms = {HARMFUL: 0.3}
    yield made
    made.close()


def deferral_of(local: LocalService, edit: Edit) -> Deferral:
    found = local.edit(edit)
    assert found.status is S.DEFERRED and found.deferral is not None
    return found.deferral


def next_try(local: LocalService, edit: Edit) -> NextTry:
    with local.store.read() as connection:
        return read_next_tries(connection, local.context, [edit.id])[edit.id]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_refused_edit_keeps_the_reason_the_figures_and_the_version_it_was_tried_on(kind: str, tmp_path: Path) -> None:
    with local_services(kind, tmp_path) as make:
        local = make(settings=LifecycleSettings(cadence=PATIENT, acceptance=LIMITS))
        local.ledger.harms = {HARMFUL: 0.3}
        local.live(("a", "1"))
        (edit,) = local.live(("b", HARMFUL))

        kept = deferral_of(local, edit)

    assert "30%" in kept.reason
    assert kept.figures["far"] == pytest.approx({"value": 0.3, "limit": 0.05})
    assert (kept.tried_on, kept.tries) == (1, 1)
    assert kept.tried_at is not None and kept.tried_at >= edit.created_at


def test_an_edit_that_would_lose_live_edits_says_how_many(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    local.ledger.displacing_targets = {"3"}

    (edit,) = local.live(("c", "3"))

    assert deferral_of(local, edit).figures["lost"] == {"value": 2, "limit": 0}


def test_an_edit_that_found_the_window_full_was_not_tried(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(hard=1, automatic=False)))
    _, waiting = local.post(("a", "1"), ("b", "2"))

    local.worker.drain()

    kept = deferral_of(local, waiting)
    assert (kept.tried_on, kept.tried_at, kept.tries, kept.figures) == (None, None, 0, {})
    assert "window is full" in kept.reason
    local.close()


def test_each_refused_retrain_is_one_more_try_of_the_deferred_edits_in_it(local: LocalService) -> None:
    (edit,) = local.live(("b", HARMFUL))
    first = deferral_of(local, edit)
    local.ledger.far = lambda size: 0.5  # whatever is trained

    job = retrained(local)

    second = deferral_of(local, edit)
    assert job.status == "failed"
    assert (first.tries, second.tries) == (1, 2)
    assert "a retrain with it was not accepted" in second.reason
    assert second.figures["far"]["value"] == pytest.approx(0.8)
    assert local.edit(edit).error == second.reason


def test_a_retrain_that_loses_more_than_a_window_holds_is_a_try_of_each_of_its_edits(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=replace(MANUAL, hard=1)))
    local.ledger.not_taken["locft"] = {"1", "2"}
    made = local.post(("a", "1"), ("b", "2"), method="locft")
    assert [deferral_of(local, edit).tries for edit in made] == [0, 0]

    assert retrained(local).status == "failed"

    assert [deferral_of(local, edit).tries for edit in made] == [1, 1]
    assert "more than a window may hold" in deferral_of(local, made[0]).reason
    local.close()


def test_tries_are_counted_over_a_time_in_which_the_edit_was_live(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL))
    local.ledger.not_taken["baft"] = {"1"}
    (edit,) = local.live(("a", "1"))
    retrained(local)
    assert local.statuses([edit]) == [S.CONSOLIDATED]
    local.roll_back(0, requeue=True)

    local.worker.drain()

    assert deferral_of(local, edit).tries == 2
    local.close()


def test_a_deferral_is_logged_once_with_its_figures_and_without_the_edit_s_texts(local: LocalService) -> None:
    with capture_logs() as lines:
        (edit,) = local.live(("the secret prompt", HARMFUL))

    (line,) = [line for line in lines if line["event"] == "deferred"]
    assert (line["edit"], line["tried_on_version"], line["tries"]) == (edit.id, 0, 1)
    assert line["figures"]["far"]["value"] == pytest.approx(0.3)
    assert "30%" in line["reason"]
    assert "secret" not in str(lines) and HARMFUL not in str(lines)


def test_nothing_is_logged_of_a_deferral_that_was_not_committed(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    local.post(("b", HARMFUL))
    finish = jobs.finish

    def fail_once(*given: object, **named: object) -> None:
        monkeypatch.setattr(jobs, "finish", finish)
        raise RuntimeError

    monkeypatch.setattr(jobs, "finish", fail_once)
    with capture_logs() as lines:
        local.worker.drain()

    assert len(local.ledger.fits) == 2
    assert [line["tries"] for line in lines if line["event"] == "deferred"] == [1]


def test_a_deferred_edit_says_when_the_cadence_tries_it_next(tmp_path: Path) -> None:
    rules = replace(PATIENT, deferred=2)
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=rules, acceptance=LIMITS))
    local.ledger.harms = {HARMFUL: 0.3}
    (edit,) = local.live(("b", HARMFUL))
    assert (next_try(local, edit).when, next_try(local, edit).edits) == ("by_time", 1)

    local.retrain()

    assert next_try(local, edit).when == "under_way"
    local.worker.drain()
    local.close()


def test_a_running_retrain_tries_only_the_edits_of_its_snapshot(local: LocalService) -> None:
    (inside,) = local.live(("b", HARMFUL))
    (later,) = local.post(("c", "3"), method="locft")
    with local.store.write() as connection:
        job = jobs.insert(connection, "retrain", reason=None, author="ann", now=local.context.clock())
        jobs.update(connection, job.id, status="running", edit_ids=[inside.id])

    assert next_try(local, inside).when == "under_way"
    assert next_try(local, later).when == "after_retrain"
