"""The start of a local server: a long start is waited for, and a server that stalls or ends is reported in a sentence."""

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.client.local_server import LocalServer
from service.client.startup import TAIL_BYTES, ServerStart, describe_last_line
from service.client.steps import Send, send
from service.domain.errors import Unavailable
from service.settings import environment_without_settings

# Logs as a real server does, one line after another, and is ready after the last line.
SLOW = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
for done in range(int(sys.argv[1])):
    print(json.dumps({"event": "sampling neutral sentences", "done": done, "of": int(sys.argv[1])}), file=sys.stderr, flush=True)
    time.sleep(0.05)
if sys.argv[2] == "end":
    sys.exit("the model folder has no config.json")
if sys.argv[2] == "stand still":
    time.sleep(600)
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os.kill(os.getpid(), 9)
        body = json.dumps({"status": "ok", "checks": {"database": "ok", "edits": os.environ.get("EDITS", "ok")}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(os.environ["ERRATA_PORT"])), Ready).serve_forever()
"""


def slow_server(folder: Path, lines: int, then: str = "serve") -> LocalServer:
    fake = (sys.executable, "-c", SLOW, str(lines), then)
    return LocalServer(environment_without_settings(), folder / "server.log", command=fake)


@pytest.fixture(autouse=True)
def copies_of_logs_go_to_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def killed_at_end() -> Any:
    """Servers that are killed at the end."""
    servers: list[LocalServer] = []
    yield servers
    for server in servers:
        server.kill()


def progress_of(start: Callable[[Callable[[str], None]], None]) -> list[str]:
    texts: list[str] = []
    start(texts.append)
    return texts


class SleepClock:
    """A clock that moves by 60 s in each sleep; `during` is called in each sleep with the number of sleeps so far."""

    def __init__(self, during: Callable[[int], None]) -> None:
        self.now, self.slept, self._during = 0.0, 0, during

    def __call__(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 60.0
        self.slept += 1
        self._during(self.slept)


def start_with(log: Path, clock: SleepClock, ready_after: int, **more: Any) -> ServerStart:
    class CountedStart(ServerStart):
        def is_ready(self) -> bool:
            return clock.slept >= ready_after

    return CountedStart("http://nowhere", log, lambda: False, clock=clock, sleep=clock.sleep, stall_s=180.0, **more)


def test_a_start_of_forty_minutes_is_waited_for_while_its_log_grows(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def write_log(times: int) -> None:
        with log.open("a") as file:
            file.write(f'{{"event": "sampling neutral sentences", "done": {times}, "of": 40}}\n')

    clock = SleepClock(write_log)

    texts = progress_of(lambda progress: start_with(log, clock, ready_after=40, progress=progress).wait())

    assert clock.now == 40 * 60.0
    assert texts[-1] == "the server starts, 2340 s: sampling neutral sentences, 39 of 40"


def test_a_start_is_waited_for_while_the_server_says_that_it_gets_ready(tmp_path: Path) -> None:
    class GettingReady(BaseHTTPRequestHandler):
        asked_count = 0

        def do_GET(self) -> None:
            GettingReady.asked_count += 1
            edits = "ok" if self.asked_count > 40 else f"sampling neutral sentences, {self.asked_count}%"
            body = json.dumps({"status": "ok", "checks": {"edits": edits}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    clock = SleepClock(lambda _: None)
    with HTTPServer(("127.0.0.1", 0), GettingReady) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ServerStart(url, tmp_path / "log", lambda: False, clock=clock, sleep=clock.sleep, stall_s=180.0).wait()
        server.shutdown()

    assert clock.now == 40 * 60.0


def test_a_second_start_does_not_report_the_last_line_of_the_first_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"event": "stopping"}\n')
    clock = SleepClock(lambda _: None)

    texts = progress_of(lambda progress: start_with(log, clock, ready_after=1, progress=progress).wait())

    assert texts == ["the server starts, 0 s: it loads its program"]


def test_a_start_that_stalls_is_given_up_with_its_last_log_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    clock = SleepClock(lambda times: log.write_text('{"event": "preparing fits"}\n') and None)

    with pytest.raises(Unavailable, match=r"stood still for 240 s .*: preparing fits"):
        start_with(log, clock, ready_after=1_000).wait()


def test_a_silent_start_that_computes_is_waited_for(tmp_path: Path) -> None:
    clock = SleepClock(lambda _: None)

    start_with(tmp_path / "no log", clock, ready_after=30, activity=lambda: clock.slept).wait()

    assert clock.slept == 30


def test_a_slow_start_is_not_killed_and_reports_its_progress(tmp_path: Path, killed_at_end: list[LocalServer]) -> None:
    server = slow_server(tmp_path, 20)
    killed_at_end.append(server)

    texts = progress_of(server.start)

    assert server.is_running()
    assert any("sampling neutral sentences" in text and "of 20" in text for text in texts)


def test_a_server_that_stalls_is_killed_and_reported_in_a_sentence(tmp_path: Path, killed_at_end: list[LocalServer]) -> None:
    server = slow_server(tmp_path, 2, "stand still")
    killed_at_end.append(server)

    with pytest.raises(Unavailable, match="stood still"):
        server.start(stall_s=0.5)

    assert not server.is_running()


def test_a_server_that_ends_while_it_starts_is_reported_with_a_copy_of_its_log(tmp_path: Path) -> None:
    server = slow_server(tmp_path, 2, "end")

    with pytest.raises(Unavailable) as raised:
        server.start()

    message = raised.value.message
    assert message.startswith("the server ended before it was ready: the model folder has no config.json (its log: ")
    assert "sampling" in Path(message.rpartition("its log: ")[2].removesuffix(")")).read_text()


def test_a_server_that_dies_ends_its_command_at_once_with_a_sentence(tmp_path: Path, killed_at_end: list[LocalServer]) -> None:
    server = slow_server(tmp_path, 1)
    killed_at_end.append(server)
    server.start()

    with server.client(30) as client, pytest.raises(Unavailable, match="ended by the signal 9"):
        client.run(send(Send("GET", "/die")))

    with server.client(30) as client, pytest.raises(Unavailable):
        client.rollback(0, "why")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"event": "published", "version": 3}', "published"),
        ('{"event": "published"}\n{"event": "request", "path": "/edits"}', "published"),
        ('{"event": "sampling", "done": 2, "of": 7}', "sampling, 2 of 7"),
        ('{"event": "export failed", "error": "OSError"}', "export failed: OSError"),
        ("RuntimeError: no", "RuntimeError: no"),
        ("[1]", "[1]"),
        ("", "it loads its program"),
    ],
)
def test_the_last_line_of_a_log_is_described_in_a_few_words(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"first\n{line}\n" if line else "")

    assert describe_last_line(tmp_path / "log") == words


def test_progress_shows_events_alone_and_no_line_that_is_cut(tmp_path: Path) -> None:
    event = '{"event": "preparing fits"}'
    request = json.dumps({"event": "request", "path": "x" * TAIL_BYTES})
    (tmp_path / "log").write_text(f"{event}\n  curl http://127.0.0.1:8000\n")
    (tmp_path / "cut").write_text(f"{event}\n{request}\n")

    assert describe_last_line(tmp_path / "log") == "curl http://127.0.0.1:8000"
    assert describe_last_line(tmp_path / "log", events_alone=True) == "preparing fits"
    assert describe_last_line(tmp_path / "cut") == "it loads its program"
