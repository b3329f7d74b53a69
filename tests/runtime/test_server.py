"""Start and stop of a server: refused starts, an orderly end, and the state that the next server finds."""

import asyncio
import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from service.client.local_server import free_port
from service.domain.errors import Conflict, Refused
from service.editors import neutral_store
from service.lm.fingerprint import fingerprint_of
from service.lm.model_files import fingerprint_of_bytes
from service.runtime.app import create_app
from service.runtime.assembly import open_server
from service.runtime.open_version import open_version
from service.runtime.server import UvicornServer, uvicorn_config
from service.runtime.sockets import bind_port
from service.serving.answer_stream import AnswerStream
from service.settings import Settings, environment_without_settings
from service.store import heads, tables
from service.store.database import Store
from tests.api.live_server import WAIT_S, live_server, tiny_settings
from tests.builders import save_model
from tests.store.store_kinds import KINDS, database


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


def test_a_change_of_what_is_not_used_is_no_other_base(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with live_server(tiny_settings(model, tmp_path / "data")) as first:
        first.edit("The colour of moss is", "green")

    (model / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.2}')
    (model / "chat_template.jinja").write_text("{# ours #}" + (model / "chat_template.jinja").read_text())
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()), indent=7))

    with live_server(tiny_settings(model, tmp_path / "data")) as second:
        assert second.ask("The colour of moss is")["text"] == "green"
        assert second.ask("The colour of moss is", surface="chat")["text"] == "green"


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_an_older_release_made_opens_and_keeps_all_it_has(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database(kind, tmp_path) as url:
        settings = tiny_settings(tiny_model, tmp_path / "data", database_url=url)
        with live_server(settings) as first:
            first.edit("The colour of moss is", "green")
            before = [first.ask("The colour of moss is", version=version)["text"] for version in (0, 1)]
        (sampled,) = (tmp_path / "data" / "neutral").iterdir()
        make_as_an_older_release(url, tiny_model, sampled, settings)

        with open_version(settings, "1") as (number, _, adapter):  # only reads, so the store stays as it is
            assert number == 1 and adapter is not None
        monkeypatch.setattr(neutral_store, "sample_sentences", lambda *given, **more: pytest.fail("they were sampled again"))
        for _ in range(2):
            with live_server(settings) as second:
                assert [second.ask("The colour of moss is", version=version)["text"] for version in (0, 1)] == before
                assert second.client.get("/model").json()["fingerprint"] == read_fingerprint(url) == fingerprint_of(tiny_model)
                assert second.edit("The colour of coal is", "black")["status"] in ("applied", "consolidated")


def make_as_an_older_release(url: str, model: Path, sampled: Path, settings: Settings) -> None:
    """Pin the bytes of the model's files, and key the neutral sentences by them."""
    former = fingerprint_of_bytes(model)
    sampled.rename(sampled.with_name(f"{neutral_store._key(former, settings.neutral)}.json"))
    store = Store(url)
    with store.write() as connection:
        connection.execute(sa.update(tables.head).values(base_fingerprint=former))
    store.close()


def read_fingerprint(url: str) -> str:
    store = Store(url)
    with store.read() as connection:
        fingerprint = heads.read(connection).base_fingerprint
    store.close()
    return fingerprint


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
    variables = {"ERRATA_NEUTRAL__SENTENCES": "8", "ERRATA_NEUTRAL__HELD_OUT": "0", "OMP_NUM_THREADS": "1"}
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


def test_answers_that_outlast_a_stop_end_with_a_sentence_and_not_with_a_cut(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole answers get a 503, and streams an error as their last piece."""
    settings = tiny_settings(tiny_model, tmp_path / "data", limits={"drain_s": 1.0})
    choose, begun = AnswerStream.choose, threading.Event()

    def choose_slowly(stream: AnswerStream, *given: Any) -> int:
        begun.set()
        time.sleep(0.1)
        return choose(stream, *given)

    monkeypatch.setattr(AnswerStream, "choose", choose_slowly)
    body = {"model": "tiny@base", "prompt": "x", "max_tokens": 100, "temperature": 1, "seed": 5}
    with open_server(settings) as state, bind_port(settings.host, 0) as sockets:
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/v1/completions"
        server = UvicornServer(uvicorn_config(create_app(settings, state), settings), end_answers=state.serving.abort)
        thread = threading.Thread(target=lambda: server.run(sockets), daemon=True)
        thread.start()
        with ThreadPoolExecutor(2) as clients:
            whole = clients.submit(httpx.post, url, json=body, timeout=WAIT_S)
            streamed = clients.submit(httpx.post, url, json={**body, "stream": True}, timeout=WAIT_S)
            assert begun.wait(WAIT_S)
            time.sleep(0.5)  # for the first piece
            server.should_exit = True
            answers = whole.result(), streamed.result()
        thread.join(WAIT_S)

    assert (answers[0].status_code, answers[0].json()["error"]["type"]) == (503, "server_error")
    last = answers[1].text.split("\n\n")[-3:]
    assert (answers[1].status_code, last[1:]) == (200, ["data: [DONE]", ""])
    assert json.loads(last[0].removeprefix("data: "))["error"]["type"] == "server_error"
