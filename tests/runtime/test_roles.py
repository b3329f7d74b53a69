"""A server and an editor, assembled apart over one Postgres and one folder of checkpoints."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.api.state import ServerState
from service.runtime.app import create_app
from service.runtime.assembly import open_server
from service.runtime.server import uvicorn_config
from service.settings import Settings
from tests.api.live_server import LiveServer, tiny_settings
from tests.api.uvicorn_thread import serve_in_thread
from tests.servers import postgres_database

WAIT_S = 30


@pytest.fixture
def settings(tiny_model: Path, tmp_path: Path) -> Iterator[Settings]:
    with postgres_database() as url:
        yield tiny_settings(tiny_model, tmp_path, database_url=url)


@pytest.fixture
def replica(settings: Settings) -> Iterator[LiveServer]:
    """A server of the role `serve`, on a port."""
    with ExitStack() as stack:
        state = stack.enter_context(open_server(settings, "serve"))
        port = stack.enter_context(serve_in_thread(uvicorn_config(create_app(settings, state), settings)))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S + 10))
        yield LiveServer(client, state, port)


@pytest.fixture
def editor(settings: Settings) -> Iterator[ServerState]:
    """The parts of the role `edit`, without a port."""
    with open_server(settings, "edit") as state:
        yield state


def test_a_replica_alone_stores_an_edit_and_fits_nothing(replica: LiveServer) -> None:
    posted = replica.client.post("/edits?wait=1", json={"prompt": "red is", "target": "blue"})

    assert (posted.status_code, posted.json()["status"]) == (202, "queued")
    assert replica.client.get("/health/ready").status_code == 200
    assert replica.client.get("/jobs").json()["items"] == []


def test_an_editor_applies_what_a_replica_took_and_the_replica_answers_with_it(replica: LiveServer, editor: ServerState) -> None:
    before = replica.ask("red is")

    edit = replica.edit("red is", "blue")

    assert (edit["status"], edit["version"]) == ("applied", 1)
    assert replica.ask("red is") | {"text": "blue", "version": 1} == replica.ask("red is")
    assert before["version"] == 0
    assert editor.lifecycle.follower.current.version == 1


def test_a_head_that_a_replica_moves_is_followed_by_the_editor(replica: LiveServer, editor: ServerState) -> None:
    replica.edit("red is", "blue")

    assert replica.client.post("/admin/rollback", json={"to": 0, "reason": "test"}).status_code == 200
    again = replica.edit("green is", "grey")

    assert (again["status"], again["version"]) == ("applied", 3)
    assert replica.ask("green is")["text"] == "grey"
