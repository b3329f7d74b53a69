"""Edits that are published although acceptance refuses what they cost, and what stays true for all other edits."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.edit import ANYWAY, EditStatus
from service.domain.errors import Refused
from service.domain.liveset import Carrier
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.settings import LifecycleSettings
from service.store import events
from tests.lifecycle.local_service import MANUAL, PATIENT, LocalService, log_text, new_local_service, retrained

S = EditStatus
HARMFUL, WORSE = "nonsense", "worse nonsense"
LIMITS = AcceptanceLimits(far_fall=0.05, far_loss=0.2, retrain_fall=0.1)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=LIMITS))
    made.ledger.harms = {HARMFUL: 0.4, WORSE: 0.6}
    yield made
    made.close()


def force(local: LocalService, *facts: tuple[str, str], **given: Any) -> list[Any]:
    """Post edits that are to be accepted anyway, and apply them."""
    made = local.post(*facts, accept=ANYWAY, **given)
    local.worker.drain()
    return made


def test_an_edit_is_published_against_a_refusal_which_edit_version_event_and_log_record(local: LocalService) -> None:
    with capture_logs() as lines:
        (edit,) = force(local, ("b", HARMFUL))

    assert (local.statuses([edit]), local.says("b")) == ([S.APPLIED], HARMFUL)
    assert local.edit(edit).accepted_anyway
    scores = local.head.scores
    assert scores["accepted"] == "anyway"
    assert scores["refused"]["figures"]["far"]["value"] == pytest.approx(0.4)
    assert local.events_of(edit)[0]["data"]["accept"] == "anyway"
    assert local.events_of(edit)[-1]["data"] == {"accepted": "anyway"}
    with local.store.read() as connection:
        (published,) = [event for event in events.read_of_version(connection, 1) if event["type"] == "version.published"]
    assert published["data"]["refused"] == scores["refused"]
    (line,) = [line for line in lines if line["event"] == "accepted anyway"]
    assert (line["version"], line["edits"], line["figures"]) == (1, [edit.id], scores["refused"]["figures"])
    assert HARMFUL not in str(lines)


def test_an_edit_that_acceptance_allows_is_not_said_to_be_accepted_anyway(local: LocalService) -> None:
    (edit,) = force(local, ("a", "1"))

    assert local.statuses([edit]) == [S.APPLIED]
    assert not local.edit(edit).accepted_anyway
    assert local.head.scores.keys().isdisjoint({"accepted", "refused", "conceded"})


def test_no_request_publishes_a_score_that_is_not_finite(local: LocalService) -> None:
    local.ledger.far = lambda size: math.nan

    (edit,) = force(local, ("b", HARMFUL))

    assert local.statuses([edit]) == [S.DEFERRED]
    assert "not finite" in str(local.edit(edit).error)
    assert local.head.number == 0


def test_no_request_publishes_a_fit_that_loses_live_edits_or_does_not_answer_the_edit(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.displacing_targets, local.ledger.not_taken["baft"] = {HARMFUL}, {WORSE}

    made = force(local, ("b", HARMFUL), ("c", WORSE))

    assert local.statuses(made) == [S.DEFERRED] * 2
    assert local.head.number == 1


def test_a_judged_edit_is_not_carried_through_by_one_that_waits_beside_it(local: LocalService) -> None:
    (judged,) = local.post(("a", WORSE))
    (forced,) = local.post(("b", HARMFUL), accept=ANYWAY)
    (good,) = local.post(("c", "3"))

    local.worker.drain()

    assert local.statuses([judged, forced, good]) == [S.DEFERRED, S.APPLIED, S.APPLIED]
    assert [targets for _, targets, _ in local.ledger.fits] == [(WORSE,), (HARMFUL,), ("3",)]


def test_of_several_edits_only_those_that_are_refused_alone_are_accepted_anyway(local: LocalService) -> None:
    good, harmful = force(local, ("a", "1"), ("b", HARMFUL))

    assert local.statuses([good, harmful]) == [S.APPLIED] * 2
    assert [local.edit(edit).accepted_anyway for edit in (good, harmful)] == [False, True]


def test_edits_of_one_fact_keep_their_order_however_they_are_accepted(local: LocalService) -> None:
    first = local.post(("a", "1"))
    first += local.post(("a", HARMFUL), accept=ANYWAY)
    first += local.post(("a", "3"))

    local.worker.drain()

    assert local.statuses(first) == [S.SUPERSEDED, S.SUPERSEDED, S.APPLIED]
    assert local.says("a") == "3"


def test_posting_a_refused_edit_once_more_to_be_accepted_anyway_supersedes_it(local: LocalService) -> None:
    (judged,) = local.live(("b", HARMFUL))
    assert local.statuses([judged]) == [S.DEFERRED]

    (forced,) = force(local, ("b", HARMFUL))

    assert forced.id != judged.id
    assert local.statuses([judged, forced]) == [S.SUPERSEDED, S.APPLIED]


def test_a_fact_that_is_live_as_asked_makes_no_second_edit(local: LocalService) -> None:
    (judged,) = local.live(("a", "1"))

    assert [edit.id for edit in local.post(("a", "1"), accept=ANYWAY)] == [judged.id]


def test_an_edit_that_only_a_retrain_makes_live_cannot_be_accepted_anyway(local: LocalService) -> None:
    with pytest.raises(Refused, match="judged") as refused:
        local.post(("a", "1"), method="locft", accept=ANYWAY)

    assert refused.value.field == "accept"
    assert local.all_edits() == []


def test_a_later_judged_edit_answers_for_its_own_fall_and_not_for_the_harm_before_it(local: LocalService) -> None:
    local.ledger.harms |= {"small": 0.04, "large": 0.06}
    force(local, ("b", HARMFUL))

    small, large = local.live(("c", "small"), ("d", "large"))

    assert local.statuses([small, large]) == [S.APPLIED, S.DEFERRED]
    assert local.head.scores["conceded"] == pytest.approx({"far_total": 0.4})


def test_the_floor_still_bounds_a_stream_of_judged_edits_after_one_accepted_anyway(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL, acceptance=LIMITS))
    local.ledger.harms = {HARMFUL: 0.4} | {f"small {number}": 0.04 for number in range(9)}
    force(local, ("b", HARMFUL))

    made = local.live(*((f"p{number}", f"small {number}") for number in range(9)))

    assert local.statuses(made) == [S.APPLIED] * 5 + [S.DEFERRED] * 4
    assert "60% may" in str(local.edit(made[-1]).error)
    local.close()


def test_after_its_retraction_nothing_is_conceded_any_more(local: LocalService) -> None:
    local.live(("a", "1"))
    (edit,) = force(local, ("b", HARMFUL))

    local.retract(edit)
    local.worker.drain()

    assert (local.statuses([edit]), local.head.scores["locality"]["far"]["kept"]) == ([S.RETRACTED], 1.0)
    assert "conceded" not in local.head.scores


def test_edits_on_tensors_with_an_empty_window_are_judged_against_these_tensors(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL, acceptance=replace(LIMITS, far_loss=1.0)))
    local.ledger.harms = {"costly": 0.09}
    local.post(("a", "costly"), method="locft")
    retrained(local)
    (gone,) = local.live(("b", "2"))
    local.retract(gone)
    local.worker.drain()
    assert local.live_set.window == ()

    (edit,) = local.live(("c", "3"))

    assert local.statuses([edit]) == [S.APPLIED]
    local.close()


# Retrains


def test_a_retrain_consolidates_an_edit_accepted_anyway_if_it_costs_no_more_there(local: LocalService) -> None:
    made = local.live(("a", "1")) + force(local, ("b", HARMFUL))

    job = retrained(local)

    assert (job.status, local.statuses(made)) == ("done", [S.CONSOLIDATED] * 2)
    assert "accepted" not in local.head.scores
    assert [local.edit(edit).accepted_anyway for edit in made] == [False, True]


def test_a_retrain_that_is_refused_keeps_such_an_edit_in_the_window_and_fails_no_other(local: LocalService) -> None:
    made = local.live(("a", "1")) + force(local, ("b", HARMFUL))
    waiting = local.post(("c", "3"), method="locft")

    def costs_more_in_tensors(method: str) -> None:
        local.ledger.harms[HARMFUL] = 0.9 if method == "locft" else 0.4

    local.ledger.during_fit = costs_more_in_tensors

    job = retrained(local)

    assert job.status == "done"
    assert "once more with 1 edits in the window that were accepted anyway" in log_text(job)
    assert local.statuses([*made, *waiting]) == [S.CONSOLIDATED, S.APPLIED, S.CONSOLIDATED]
    assert local.live_set.get(made[1].id).carrier is Carrier.WINDOW  # type: ignore[union-attr]
    assert (local.says("a"), local.says("b"), local.says("c")) == ("1", HARMFUL, "3")


def test_a_retrain_is_published_though_the_window_on_its_tensors_costs_more_than_before(local: LocalService) -> None:
    made = local.live(("a", "1")) + force(local, ("b", HARMFUL))
    local.ledger.harms[HARMFUL] = 0.8  # on every new tensors, by both methods

    job = retrained(local)

    assert (job.status, local.statuses(made)) == ("done", [S.CONSOLIDATED, S.APPLIED])
    assert local.head.scores["accepted"] == "anyway"
    assert local.head.scores["conceded"] == pytest.approx({"far_total": 0.8})
    assert local.edit(made[1]).accepted_anyway


def test_no_newcomer_fails_for_what_a_window_with_edits_accepted_anyway_costs(local: LocalService) -> None:
    made = local.live(("a", "1")) + force(local, ("b", HARMFUL))
    (newcomer,) = local.post(("c", "3"), method="locft")
    local.ledger.not_taken["locft"] = {"3"}  # so that it enters the new window, unjudged by the tensors
    local.ledger.harms[HARMFUL] = 0.8

    job = retrained(local)

    assert (job.status, local.statuses([*made, newcomer])) == ("done", [S.CONSOLIDATED, S.APPLIED, S.DEFERRED])
    assert "once more without 1 of 1 edits that were not live before" in log_text(job)


def test_a_retrain_whose_own_tensors_cost_too_much_is_refused_as_ever(local: LocalService) -> None:
    made = local.live(("a", "1")) + force(local, ("b", HARMFUL))
    local.ledger.harms |= {"1": 0.6, HARMFUL: 0.8}

    job = retrained(local)

    assert (job.status, local.statuses(made)) == ("failed", [S.APPLIED] * 2)


def test_edits_accepted_anyway_make_no_retrain_due(tmp_path: Path) -> None:
    rules = Cadence(soft=1, hard=5, age_s=1e9, deferred_s=1e9)
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=rules, acceptance=LIMITS))
    local.ledger.harms = {HARMFUL: 0.4}

    force(local, ("b", HARMFUL))

    with local.store.read() as connection:
        inputs = read_cadence_inputs(connection, local.context)
    assert (inputs.window, inputs.untried) == (1, 0)
    assert [version.kind for version in local.versions()] == ["base", "baft"]
    local.close()
