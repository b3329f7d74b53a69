"""A server answers and takes edits while it gets ready for them; what fails there is tried again."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.domain.errors import Unavailable
from service.editors import neutral_store
from service.editors.neutral_store import NeutralPart
from service.editors.protocol import FitCancelled, Hooks
from service.runtime.edit_preparation import EditPreparation
from tests.api.live_server import LiveServer, live_server, tiny_settings

WAIT_S = 30.0


class Gate:
    """Holds the sampling of neutral sentences until it is opened. `reached` is set when the sampling begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        sample = neutral_store.sample_sentences

        def held(*given: object, yield_to_answers: object, **named: object) -> Iterator[object]:
            self.reached.set()
            while not self.open.wait(0.01):
                yield_to_answers()  # type: ignore[operator]
            yield from sample(*given, yield_to_answers=yield_to_answers, **named)  # type: ignore[arg-type]

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
    assert server.client.get("/model").json()["getting_ready"] == ready.json()["checks"]["edits"]


def test_an_edit_is_accepted_meanwhile_and_applied_once_the_server_is_ready(gate: Gate, server: LiveServer) -> None:
    posted = server.client.post("/edits?wait=0.2", json={"prompt": "red is", "target": "blue"})
    assert (posted.status_code, posted.json()["status"]) == (202, "queued")

    gate.open.set()

    assert server.follow(f"/edits/{posted.json()['id']}", lambda edit: edit["status"] == "applied")["version"] == 1
    assert server.client.get("/health/ready").json()["checks"]["edits"] == "ok"
    assert server.client.get("/model").json()["getting_ready"] is None


def test_what_needs_the_sentences_says_that_they_are_not_there_yet(server: LiveServer) -> None:
    answer = server.client.get("/versions/0/bases")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "not there yet" in answer.json()["detail"]


def test_a_server_stops_in_the_middle_of_getting_ready_and_goes_on_later(gate: Gate, tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path)
    with live_server(settings) as made:
        assert gate.reached.wait(WAIT_S)
        posted = made.client.post("/edits", json={"prompt": "red is", "target": "blue"}).json()
    gate.open.set()

    with live_server(settings) as again:
        assert again.follow(f"/edits/{posted['id']}", lambda edit: edit["status"] == "applied")["version"] == 1


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


def test_the_process_is_not_sound_if_getting_ready_ends_without_a_worker() -> None:
    def sentences(hooks: Hooks) -> Iterator[NeutralPart]:
        raise FitCancelled("cancelled")

    preparation = EditPreparation(sentences, NeverBegun)
    preparation.start()
    preparation.stop(WAIT_S)

    assert not preparation.is_alive
