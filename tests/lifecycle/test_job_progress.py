"""What a running job says of itself: how far it is, and what its training came to."""

import pytest

from service.editors.protocol import FitResult
from service.lifecycle import job_hooks
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.retrain import run
from service.lifecycle.retrain.request import request_retrain
from service.lm.overlay import EMPTY
from service.store import jobs
from tests.lifecycle.local_service import LocalService


def test_the_progress_of_a_job_of_several_fits_never_goes_back(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_hooks, "PROGRESS_INTERVAL_S", 0.0)
    local.live(("a", "1"))
    job = request_retrain(local.store, author="ann")
    hooks, shown = JobHooks(local.context, Lease(fence=1), job.id, "retrain.middle").hooks(), []

    for share in (0.2, 0.9, 0.1, 0.95, 1.1):
        hooks.progress(share, "fit")
        with local.store.read() as connection:
            shown.append(jobs.get(connection, job.id).progress)

    assert shown == [0.2, 0.9, 0.9, 0.95, 1.0]


def test_counts_among_the_scores_are_said_in_the_log_too() -> None:
    trained = FitResult(EMPTY, {}, ("a",), {"retention": 0.98, "neutral_rows": 2914})

    assert run._format_scores(trained) == "neutral rows 2914, retention 0.980, 1 not taken"
