"""By which consolidating method a retrain is done, and what its job and its version say of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Refused
from service.editors import registry
from service.lifecycle.retrain.request import request_retrain
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs
from tests.lifecycle.ledger import tensors_of
from tests.lifecycle.local_service import MANUAL, Crash, LocalService, job_of, log_text, new_local_service, retrained

S = EditStatus


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL, look_s=0.0))
    yield made
    made.close()


def ask(local: LocalService, method: str | None = None, mode: str | None = None) -> jobs.Job:
    return request_retrain(local.store, author="ann", method=method, mode=mode)  # type: ignore[arg-type]


def test_without_a_name_a_retrain_is_by_the_method_of_the_settings(tmp_path: Path) -> None:
    settings = LifecycleSettings(cadence=MANUAL, consolidating_method="lora")
    local = new_local_service(tmp_path, settings=settings)
    local.live(("a", "1"))

    assert retrained(local).method == "lora"
    assert local.ledger.retrain_methods == ["lora"] and local.head.kind == "lora"
    local.close()


def test_an_edit_waits_for_the_retrain_by_the_method_that_it_names(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"), method="lora")
    assert local.edit(edit).status is S.DEFERRED

    job = retrained(local)

    assert (job.method, local.head.kind, local.edit(edit).status) == ("lora", "lora", S.CONSOLIDATED)
    assert "retrain by LoRA" in log_text(job)


def test_the_latest_entering_edit_that_names_a_method_decides(local: LocalService) -> None:
    local.post(("a", "1"), method="lora")
    local.post(("b", "2"), method="locft")
    local.live(("c", "3"))
    assert retrained(local).method == "locft"

    local.post(("d", "4"), method="lora")
    assert retrained(local).method == "lora"


def test_an_edit_that_is_in_the_tensors_decides_no_further_retrain(local: LocalService) -> None:
    local.post(("a", "1"), method="lora")
    assert retrained(local).method == "lora"
    local.live(("b", "2"))

    assert retrained(local).method == "locft"


def test_a_request_may_name_the_method(local: LocalService) -> None:
    local.post(("a", "1"), method="locft")
    ask(local, "lora")
    local.worker.drain()

    assert local.ledger.retrain_methods == ["lora"] and local.head.kind == "lora"


def test_a_queued_retrain_takes_the_method_that_is_requested_later(local: LocalService) -> None:
    local.live(("a", "1"))
    first, second = ask(local), ask(local, "lora")
    local.worker.drain()

    assert second.id == first.id and local.ledger.retrain_methods == ["lora"]
    assert "by LoRA" in log_text(job_of(local, first))


def test_consolidated_edits_can_be_retrained_by_another_method(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local)
    with pytest.raises(Conflict):
        ask(local)

    ask(local, "lora")
    local.worker.drain()

    assert local.head.kind == "lora" and tensors_of(local.context.follower.current.overlay) == {"prompt:a": "1"}


@pytest.mark.parametrize("name", ["rome", "baft", "auto"])
def test_a_retrain_by_what_is_no_consolidating_method_is_refused(local: LocalService, name: str) -> None:
    with pytest.raises(Refused) as caught:
        ask(local, name)

    assert caught.value.field == "method"


def test_an_edit_by_an_unknown_method_is_refused_and_not_stored(local: LocalService) -> None:
    with pytest.raises(Refused) as caught:
        local.post(("a", "1"), method="rome")

    assert caught.value.field == "method" and local.all_edits() == []


def test_a_retrain_that_was_killed_is_repeated_by_its_method(local: LocalService) -> None:
    local.live(("a", "1"))
    ask(local, "lora")

    def die(method: str) -> None:
        raise Crash

    local.ledger.during_fit = die
    with pytest.raises(Crash):
        local.worker.drain()
    local.ledger.during_fit = lambda method: None
    again = local.again(settings=replace(local.settings, consolidating_method="locft"))
    again.worker.drain()

    assert again.ledger.retrain_methods == ["lora", "lora"] and again.head.kind == "lora"
    again.close()


def test_a_retrain_by_a_method_that_was_uninstalled_is_done_by_the_default(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.live(("a", "1"))
    ask(local, "lora")
    installed = {name: method for name, method in registry.list_methods().items() if name != "lora"}
    monkeypatch.setattr(registry, "list_methods", lambda: installed)

    local.worker.drain()

    assert local.ledger.retrain_methods == ["locft"] and local.head.kind == "locft"


def test_the_drift_of_minor_retrains_by_lora_is_measured_like_that_of_others(tmp_path: Path) -> None:
    settings = LifecycleSettings(cadence=replace(MANUAL, minors=1), consolidating_method="lora")
    local = new_local_service(tmp_path, settings=settings)
    modes = []
    for name in "abc":
        local.live((name, "1"))
        modes.append(retrained(local).mode)

    assert modes == ["major", "minor", "major"]
    assert local.head.scores["drift"]["far"] == {"minor": 1.0, "major": 1.0}
    local.close()
