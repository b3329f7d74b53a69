"""Retracting: the edits that are retracted at once, and the refusals."""

import pytest

from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from tests.lifecycle.local_service import LocalService, live_ids, once

S = EditStatus


def test_a_queued_edit_is_retracted_at_once_and_never_fitted(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))

    assert local.retract(edit).is_done
    local.worker.drain()

    assert local.statuses([edit]) == [S.RETRACTED]
    assert local.ledger.fits == []


def test_retracting_a_consolidated_edit_makes_a_retrain_due(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    local.retrain()
    local.worker.drain()

    local.retract(a)
    local.worker.drain()

    assert local.head.kind == "locft"
    assert (local.head.digest, local.live_set.items) == (None, ())


def test_a_superseded_edit_cannot_be_retracted_and_a_second_retraction_is_no_error(local: LocalService) -> None:
    first, second = local.live(("a", "1"), ("a", "2"))

    with pytest.raises(Conflict):
        local.retract(first)
    local.retract(second)
    assert not local.retract(second).is_done
    local.worker.drain()

    assert local.retract(second).is_done


def test_an_edit_retracted_during_its_fit_is_never_live(local: LocalService) -> None:
    a, b = local.post(("a", "1"), ("b", "2"))
    local.ledger.during_fit = once(lambda: local.retract(a))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.APPLIED]
    assert local.says("a") == "base of prompt:a"
    assert all(a.id not in live_ids(local, version.number) for version in local.versions())
