"""A server answers and takes edits while it gets ready for them; what fails there is tried again."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from service.domain.errors import Unavailable
from service.editors import neutral_store
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import NeutralPart
from service.editors.protocol import FitCancelled, Hooks
from service.lifecycle.retrain.snapshots import WAITING
from service.runtime.edit_preparation import EditPreparation
from service.settings import Settings
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.editors.taught_model import neutral

WAIT_S = 30.0


class Gate:
    """Holds the sampling of neutral sentences, behind a number of parts, until it is opened. `reached` is set there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.free_parts = 0
        sample = neutral_store.sample_sentences

        def held(*given: object, yield_to_answers: object, **named: object) -> Iterator[object]:
            parts = sample(*given, yield_to_answers=yield_to_answers, **named)  # type: ignore[arg-type]
            for number in count():
                if number >= self.free_parts:
                    self.reached.set()
                    while not self.open.wait(0.01):
                        yield_to_answers()  # type: ignore[operator]
                try:
                    yield next(parts)
                except StopIteration:
                    return

        monkeypatch.setattr(neutral_store, "sample_sentences", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def server(gate: Gate, tiny_model: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A server that is sampling its neutral sentences."""
    with live_server(tiny_settings(tiny_model, tmp_path)) as made:
        assert gate.reached.wait(WAIT_S)
        yield made


def test_prompts_are_answered_while_the_sentences_are_sampled(server: LiveServer) -> None:
    ready = server.client.get("/health/ready")

    assert server.ask("red is")["version"] == 0
    assert ready.status_code == 200 and ready.json()["status"] == "ok"
    assert ready.json()["checks"]["edits"].startswith("sampling neutral sentences")
    assert server.client.get("/model").json()["getting_ready"].startswith("sampling neutral sentences")


def test_an_edit_is_accepted_meanwhile_and_applied_once_the_server_is_ready(gate: Gate, server: LiveServer) -> None:
    posted = server.client.post("/edits?wait=0.2", json={"prompt": "red is", "target": "blue"})
    assert (posted.status_code, posted.json()["status"]) == (202, "queued")

    gate.open.set()

    assert server.follow(f"/edits/{posted.json()['id']}", lambda edit: edit["status"] == "applied")["version"] == 1
    assert server.client.get("/health/ready").json()["checks"]["edits"] == "ok"
    assert server.client.get("/model").json()["getting_ready"] is None


def test_the_bases_of_a_version_without_interventions_need_no_sentences(server: LiveServer) -> None:
    answer = server.client.get("/versions/0/bases")

    assert (answer.status_code, answer.json()["blocks"]) == (200, [])


def test_a_server_stops_in_the_middle_of_getting_ready_and_goes_on_later(gate: Gate, tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path)
    with live_server(settings) as made:
        assert gate.reached.wait(WAIT_S)
        posted = made.client.post("/edits", json={"prompt": "red is", "target": "blue"}).json()
    gate.open.set()

    with live_server(settings) as again:
        assert again.follow(f"/edits/{posted['id']}", lambda edit: edit["status"] == "applied")["version"] == 1


def in_parts(model: Path, folder: Path) -> Settings:
    """Settings under which 9 of 24 sentences are there after two parts of sampling, of four."""
    return tiny_settings(model, folder).model_copy(
        update={"neutral": NeutralSettings(sentences=24, held_out=6, tokens=12, batch=8, first_part=9)}
    )


def test_edits_are_fitted_with_the_first_sentences_and_a_retrain_waits_for_all(
    gate: Gate, tiny_model: Path, tmp_path: Path
) -> None:
    gate.free_parts = 2
    with live_server(in_parts(tiny_model, tmp_path)) as made:
        assert made.edit("red is", "blue")["status"] == "applied"
        assert made.client.get("/versions/1").json()["neutral_sentences"] == 9
        assert made.client.get("/versions/1/bases").status_code == 200
        state = made.client.get("/health/ready").json()["checks"]["edits"]
        assert state.startswith("edits are fitted with the first 9 of 24 neutral sentences, and retrains wait for the others: ")
        same = made.client.get("/model").json()["getting_ready"]
        assert same.rpartition(",")[0] == state.rpartition(",")[0]  # the share behind it may have grown
        job = made.client.post("/admin/retrain", json={"reason": "test"}).json()
        waiting = made.follow(f"/jobs/{job['id']}", lambda job: job["stage"] is not None)
        assert (waiting["status"], waiting["stage"]) == ("queued", WAITING)

        gate.open.set()

        done = made.follow(f"/jobs/{job['id']}", lambda job: job["status"] == "done")
        assert made.client.get("/health/ready").json()["checks"]["edits"] == "ok"
        assert done["neutral_sentences"] == made.client.get(f"/versions/{done['version']}").json()["neutral_sentences"] > 9
        assert made.client.get("/versions/0").json()["neutral_sentences"] is None


def test_a_restart_between_the_first_part_and_the_rest_goes_on(gate: Gate, tiny_model: Path, tmp_path: Path) -> None:
    gate.free_parts = 2
    with live_server(in_parts(tiny_model, tmp_path)) as made:
        made.edit("red is", "blue")
    gate.free_parts = 0
    gate.reached.clear()

    with live_server(in_parts(tiny_model, tmp_path)) as again:
        assert gate.reached.wait(WAIT_S)  # nothing more was sampled
        again.edit("sky is", "green")
        assert again.client.get("/versions/2").json()["neutral_sentences"] == 9
        gate.open.set()
        again.follow("/health/ready", lambda health: health["checks"]["edits"] == "ok")
        again.edit("sea is", "white")
        assert again.client.get("/versions/3").json()["neutral_sentences"] > 9


class NeverBegun:
    """Fits nothing: a test that reaches it has failed."""

    def __init__(self, part: NeutralPart, hooks: Hooks, stack: ExitStack) -> None:
        raise AssertionError("nothing should begin")


def test_getting_ready_is_tried_again_after_a_fault_and_says_so() -> None:
    faults = [Unavailable("the disk is full"), RuntimeError("a secret")]
    states: list[str] = []
    over = threading.Event()

    def sentences(hooks: Hooks) -> Iterator[NeutralPart]:
        states.append(preparation.state)
        if faults:
            raise faults.pop(0)
        over.set()
        raise Unavailable("still full")

    preparation = EditPreparation(sentences, NeverBegun, retry_s=0.01)
    preparation.start()
    assert over.wait(WAIT_S)
    preparation.stop(WAIT_S)

    assert states[1].endswith("tried again: the disk is full")
    assert states[2].endswith("tried again: it ended with RuntimeError")


class StubWorker:
    """A worker without work."""

    is_alive = True

    def start(self) -> None:
        pass

    def stop(self, timeout_s: float) -> None:
        pass


class GrownParts:
    """Counts the parts that fits may use."""

    def __init__(self) -> None:
        self.worker = StubWorker()
        self.grown: list[bool] = []
        self.calibrated = 0

    def begin(self, part: NeutralPart, hooks: Hooks, stack: ExitStack) -> "GrownParts":
        self.grown.append(part.is_whole)
        return self

    def grow(self, part: NeutralPart, hooks: Hooks) -> None:
        self.grown.append(part.is_whole)

    def calibrate(self, hooks: Hooks) -> None:
        self.calibrated += 1


def test_a_fault_after_the_first_part_leaves_the_worker_running_and_is_tried_again() -> None:
    some, fits, faults = neutral(), GrownParts(), [Unavailable("the disk is full")]
    states: list[str] = []

    def sentences(hooks: Hooks) -> Iterator[NeutralPart]:
        yield NeutralPart(some.first(2), 3, is_whole=False)
        states.append(preparation.state)
        if faults:
            raise faults.pop(0)
        yield NeutralPart(some, 3, is_whole=True)

    preparation = EditPreparation(sentences, fits.begin, retry_s=0.01)  # type: ignore[arg-type]
    preparation.start()
    preparation._thread.join(WAIT_S)

    assert (fits.grown, fits.calibrated) == ([False, True], 1)
    assert states[1] == (
        "edits are fitted with the first 2 of 3 neutral sentences, and retrains wait for the others:"
        " getting ready for edits failed and is tried again: the disk is full"
    )
    assert preparation.state == "ok" and preparation.is_alive
    preparation.stop(WAIT_S)


def test_the_process_is_not_sound_if_getting_ready_ends_without_a_worker() -> None:
    def sentences(hooks: Hooks) -> Iterator[NeutralPart]:
        raise FitCancelled("cancelled")

    preparation = EditPreparation(sentences, NeverBegun)
    preparation.start()
    preparation.stop(WAIT_S)

    assert not preparation.is_alive
