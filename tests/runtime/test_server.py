"""Start and stop of a server: refused starts, an orderly end, and the state that the next server finds."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.client.local_server import free_port
from service.domain.errors import Conflict, Refused
from service.runtime.app import create_app
from service.runtime.assembly import open_server
from service.settings import environment_without_settings
from tests.api.live_server import WAIT_S, live_server, tiny_settings
from tests.builders import save_model


def test_a_second_server_on_one_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path)

    with open_server(settings), pytest.raises(Conflict, match="another server"), open_server(settings):
        pass
    with open_server(settings):  # the folder is free again
        pass


def test_a_store_made_with_another_base_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", "llama", seed=1)
    with open_server(tiny_settings(tiny_model, tmp_path / "data")):
        pass

    with pytest.raises(Conflict, match="another base model"), open_server(tiny_settings(other, tmp_path / "data")):
        pass


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused), open_server(tiny_settings(tmp_path / "nothing", tmp_path / "data")):
        pass


def test_the_next_server_gives_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path)
    prompts = ["The colour of moss is", "The colour of coal is", "x"]
    with live_server(settings) as first:
        first.edit(prompts[0], "green")
        before = [first.ask(prompt) for prompt in prompts]

    with live_server(settings) as second:
        after = [second.ask(prompt) for prompt in prompts]

    assert after == before
    assert after[0]["text"] == "green"


def test_a_damaged_head_is_not_served_and_its_edits_are_learned_again(tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path)
    with live_server(settings) as first:
        version = first.edit("The colour of moss is", "green")["version"]
        digest = first.client.get(f"/versions/{version}").json()["digest"]
    file = next((tmp_path / "checkpoints").glob(f"{digest}*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))

    with live_server(settings) as second:
        second.follow(f"/versions/{version}", lambda found: found["status"] == "corrupt")  # by the worker, in a moment
        refused = second.client.post("/generate", json={"prompt": "x", "version": version})
        second.follow("/model", lambda model: model["head"] > version and model["edits_counted"] == 1)
        edits = second.client.get("/edits").json()
        assert second.ask("The colour of moss is")["text"] == "green"

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:errata:problem:corrupt")
    assert edits["items"][0]["version"] == version


def test_the_application_opens_its_own_parts_without_a_server(tiny_model: Path, tmp_path: Path) -> None:
    app = create_app(tiny_settings(tiny_model, tmp_path))

    async def start_and_stop() -> int:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client,
        ):
            return (await client.get("/health/ready")).status_code

    assert asyncio.run(start_and_stop()) == 200


def test_the_log_level_also_holds_for_an_application_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    app = create_app(tiny_settings(tiny_model, tmp_path, log_level="error"))

    async def level_within() -> int:
        async with app.router.lifespan_context(app):
            return logging.getLogger().level

    assert asyncio.run(level_within()) == logging.ERROR


def test_sigterm_answers_calls_in_flight_and_ends_with_exit_code_0(tiny_model: Path, tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--data-dir", str(data), "--model", str(tiny_model)]
    variables = {"ERRATA_NEUTRAL__SENTENCES": "8", "ERRATA_NEUTRAL__CANARY": "0", "OMP_NUM_THREADS": "1"}
    log = tmp_path / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment_without_settings() | variables, stdout=subprocess.PIPE, stderr=written, text=True
        )
    try:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(4)]  # the first line comes when the port is open
        with ThreadPoolExecutor(1) as callers, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            body = {"prompt": "The colour of moss is", "target": "green"}
            waiting = callers.submit(httpx.post, f"http://127.0.0.1:{port}/edits?wait=60", json=body, timeout=70)
            pause = threading.Event()
            for _ in range(WAIT_S * 100):
                if waiting.done() or client.get("/edits").json()["items"]:
                    break
                pause.wait(0.01)
            process.send_signal(signal.SIGTERM)
            answer = waiting.result()
            code = process.wait(WAIT_S)
    finally:
        process.kill()
        process.communicate()
        errors = log.read_text(errors="replace")
    with live_server(tiny_settings(tiny_model, data)) as following:
        following.follow(f"/edits/{answer.json()['id']}", lambda edit: edit["status"] == "applied")
        text = following.ask("The colour of moss is")["text"]

    assert sum("curl" in line for line in printed) == 3
    assert answer.status_code in (200, 202)
    assert code == 0, errors
    assert "Traceback" not in errors
    assert text == "green"
