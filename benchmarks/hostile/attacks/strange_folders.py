"""A wrong folder, a missing folder, an empty database, few descriptors: none may change the status of a version."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools
from benchmarks.private_servers import new_database, postgres_server
from benchmarks.servers import ServerProcess
from service.client.local_server import free_port
from service.settings import environment_without_settings

EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
QUESTION = {"prompt": "The capital of Australia is"}
PATIENCE_S = 120.0
DESCRIPTORS = 700


def strange_folder(tools: AttackTools) -> AttackResult:
    """A second server and a listing command on the same Postgres with another folder, beside a running server."""
    postgres = postgres_server()
    if postgres is None:
        return AttackResult(True, "skipped: no Postgres here")
    with new_database(postgres) as url, tools.server(database_url=url) as server, start_raw(server) as client:
        _prepare(client)
        before = _read_state(client)
        with tools.probe_health(_address(client)):
            second = _errata("serve", "--database-url", url, "--data-dir", str(tools.folder / "other"), "--port", "0")
            listing = _errata("jobs", "--database-url", url, "--data-dir", str(tools.folder / "third"))
        after = _read_state(client)
        is_held = second.returncode == 1 and listing.returncode == 0 and before == after
        last_line = second.stderr.strip().splitlines()[-1:] or [""]
        finding = f"second server: exit code {second.returncode}, {last_line[0][:110]}…;"
        finding += f" versions and answer as before: {before == after}"
        return AttackResult(is_held, finding)


def lost_database(tools: AttackTools) -> AttackResult:
    """An empty database file beside a full folder."""
    with tools.server() as server:
        with start_raw(server) as client:
            _prepare(client)
        server.kill()
        files = _checkpoints(server)
        for name in ("errata.db-wal", "errata.db-shm"):
            (server.folder / name).unlink(missing_ok=True)
        os.truncate(server.folder / "errata.db", 0)
        process = _errata("serve", "--data-dir", str(server.folder), "--port", "0")
        is_held = process.returncode == 1 and "the database is empty" in process.stderr and files == _checkpoints(server)
        return AttackResult(
            is_held, f"exit code {process.returncode}, {len(files)} checkpoints before and {len(_checkpoints(server))} after"
        )


def unmounted_checkpoints(tools: AttackTools) -> AttackResult:
    """Checkpoints that are missing at a start and while the server runs, and return."""
    with tools.server() as server:
        with start_raw(server) as client:
            _prepare(client)
            before = _read_state(client)
        server.kill()
        folder, away = server.folder / "checkpoints", server.folder / "aside"
        folder.rename(away)
        process = _errata("serve", "--data-dir", str(server.folder), "--port", "0")
        away.rename(folder)
        with start_raw(server) as client:
            state_after = _read_state(client)
            with tools.probe_health(_address(client)):
                folder.rename(away)
                rollback_status = client.post("/admin/rollback", json={"to": 1, "reason": "while it is away"}).status_code
                edit_status = client.post("/edits", json={"prompt": "The capital of Japan is", "target": "Osaka"}).status_code
                time.sleep(3)
                away.rename(folder)
                is_live = _wait_until_applied(client, 2)
            statuses = {version["status"] for version in client.get("/versions").json()["items"]}
    is_held = process.returncode == 1 and before == state_after and edit_status == 202 and is_live and statuses == {"published"}
    finding = f"start: exit code {process.returncode}; meanwhile rollback {rollback_status}, edit {edit_status},"
    finding += f" settled afterwards: {is_live}"
    return AttackResult(is_held, f"{finding}; versions are {', '.join(sorted(statuses))}")


def few_descriptors(tools: AttackTools) -> AttackResult:
    """A server with few descriptors, all in use by connections. Rollbacks and edits succeed or wait, and no version is marked."""
    with tools.server() as server:
        with start_raw(server) as client:
            _prepare(client)
        server.kill()
        with _limited_server(DESCRIPTORS, server.folder) as url, httpx.Client(base_url=url, timeout=60) as client:
            client.get("/health/live").raise_for_status()
            with tools.probe_health(url), ExitStack() as stack:
                clients = [stack.enter_context(_connection(url)) for _ in range(DESCRIPTORS)]
                answered_count = sum(_is_answered(connection) for connection in clients)
                statuses = [_post_status(client, "/admin/rollback", {"to": number % 2, "reason": "x"}) for number in range(4)]
                edit_status = _post_status(client, "/edits", {"prompt": "The capital of Japan is", "target": "Osaka"})
            time.sleep(1)
            marked_statuses = {version["status"] for version in client.get("/versions").json()["items"]} - {"published"}
            answer = client.get("/generate", params=QUESTION).status_code
    is_held = (
        not marked_statuses and answer == 200 and 422 not in (*statuses, edit_status) and 500 not in (*statuses, edit_status)
    )
    finding = f"{answered_count} of {DESCRIPTORS} connections answered; rollbacks {statuses}, edit {edit_status}"
    return AttackResult(is_held, f"{finding}; marked versions: {len(marked_statuses)}")


@contextmanager
def _limited_server(descriptors: int, folder: Path) -> Iterator[str]:
    """A server in a process with this limit of open files."""
    port = free_port()
    program = f"ulimit -n {descriptors} && exec '{sys.executable}' -m service serve --data-dir '{folder}' --port {port}"
    with (folder / "limited.log").open("ab") as log:
        process = subprocess.Popen(["bash", "-c", program], stdout=log, stderr=log, env=environment_without_settings())
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/health/ready", timeout=10, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def _prepare(client: httpx.Client) -> None:
    client.post("/edits", params={"wait": 60}, json=EDIT).raise_for_status()
    client.post("/admin/rollback", json={"to": 0, "reason": "back"}).raise_for_status()
    client.post("/admin/rollback", json={"to": 1, "reason": "and forth"}).raise_for_status()


def _read_state(client: httpx.Client) -> list[Any]:
    items = client.get("/versions").raise_for_status().json()["items"]
    return [
        [(version["number"], version["status"], version["head"]) for version in items],
        client.get("/generate", params=QUESTION).raise_for_status().json()["text"],
    ]


def _wait_until_applied(client: httpx.Client, count: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        statuses = [edit["status"] for edit in client.get("/edits").json()["items"]]
        if sum(status in ("applied", "consolidated", "deferred") for status in statuses) >= count:
            return True
        time.sleep(0.5)
    return False


def _post_status(client: httpx.Client, path: str, body: dict[str, Any]) -> int:
    try:
        return client.post(path, json=body).status_code
    except httpx.TransportError:
        return 0


@contextmanager
def _connection(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def _is_answered(connection: http.client.HTTPConnection) -> bool:
    """Whether a request on the connection is answered. The connection stays open."""
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False


def _checkpoints(server: ServerProcess) -> list[str]:
    return sorted(path.name for path in (server.folder / "checkpoints").glob("*.safetensors"))


def _address(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def _errata(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command. A command that does not end in time is ended, with exit code 99."""
    command = [sys.executable, "-m", "service", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment_without_settings(), check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 99, "", "it did not end")


ATTACKS = (
    Attack("strange folder", strange_folder),
    Attack("lost database", lost_database),
    Attack("unmounted checkpoints", unmounted_checkpoints),
    Attack("few descriptors", few_descriptors),
)
