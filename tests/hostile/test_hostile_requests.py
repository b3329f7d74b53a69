"""1,500 hostile requests to a real server: none gets a 5xx, none is echoed, none that was refused changed anything."""

import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.telemetry.log import configure_logging
from tests.api.edge_server import connect
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.builders import save_model
from tests.hostile.mutator import MARK, HostileRequest, attacks
from tests.no_limits import NO_LIMITS
from tests.waiting import until

SEED = 20261121
COUNT = 1_500
LARGEST_PROBLEM = 2_048


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose edits wait for a retrain: what is sound among the attacks costs no fit. Retrains that are asked for run."""
    model = save_model(tmp_path_factory.mktemp("model") / "tiny", "llama")
    window = {"deferred": 1_000_000, "deferred_s": 1e9, **NO_LIMITS}
    settings = tiny_settings(model, tmp_path_factory.mktemp("data"), method="locft")
    with live_server(settings.model_copy(update={"window": type(settings.window)(**window)})) as running:  # type: ignore[arg-type]
        yield running


def send(port: int, attack: HostileRequest) -> tuple[int, dict[str, str], bytes]:
    """Send the bytes as they are: a polite client would refuse to send half of them."""
    body = attack.payload()
    headers = {"Host": "localhost", "Connection": "close", "Content-Type": "application/json"} | attack.headers
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = f"{attack.method} {attack.target} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
    with connect(port, timeout_s=30) as client:
        received = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # it may answer and close before it has read everything
            client.sendall(head.encode("utf-8", "surrogatepass") + (body or b""))
        with suppress(ConnectionResetError):
            while chunk := client.recv(65_536):
                received += chunk
    top, _, content = received.partition(b"\r\n\r\n")
    status, *fields = top.decode("latin-1").split("\r\n")
    response_headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    return int(status.split()[1]), response_headers, content


def state(target: LiveServer) -> tuple[int, ...]:
    """Everything a request may change by itself; what the worker publishes meanwhile is not the request's doing."""
    tables = (
        "edits",
        "jobs",
        "evals",
        "idempotency_keys",
        "versions WHERE kind = 'rollback'",
        "edits WHERE retract_asked_at IS NOT NULL",
    )
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    with target.state.store.read() as connection:
        return tuple(connection.exec_driver_sql(f"SELECT {counts}").one())


def test_no_hostile_request_causes_a_5xx_an_echo_or_a_change(target: LiveServer) -> None:
    statuses: Counter[int] = Counter()
    before = state(target)
    for number, attack in enumerate(attacks(COUNT, SEED)):
        status, headers, content = send(target.port, attack)
        statuses[status] += 1
        description = (
            f"attack {number} of seed {SEED}: {attack.method} {attack.target[:80]} {str(attack.body)[:200]} {attack.headers}"
        )
        assert status < 500, description
        if status >= 400:
            assert headers["content-type"] == "application/problem+json", description
            assert len(content) <= LARGEST_PROBLEM, description
            assert MARK.encode() not in content, description
            assert MARK not in str(headers), description
            if attack.method != "HEAD":
                assert json.loads(content)["status"] == status, description
            assert state(target) == before, description
        before = state(target) if status < 400 else before

    assert sum(count for status, count in statuses.items() if status >= 400) > 0.6 * COUNT
    assert target.client.get("/health/ready").status_code == 200


def test_nothing_of_a_prompt_is_logged(
    target: LiveServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Reading from `capfd` truncates what it captured: a line that the server writes meanwhile would be lost.
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    configure_logging("debug")

    answers = [
        target.client.get("/generate", params={"prompt": MARK, "max_new_tokens": 2}),
        target.client.post("/generate", json={"prompt": MARK, "max_new_tokens": 2}),
        target.client.post("/edits", json={"prompt": MARK, "target": " "}),
        target.client.get(f"/{MARK}"),
    ]

    awaited = [answer.headers["x-request-id"] for answer in answers]
    assert until(lambda: all(request in log.getvalue() for request in awaited))
    assert MARK not in log.getvalue() + "".join(capfd.readouterr())


def test_the_text_of_a_control_token_is_encoded_as_text(target: LiveServer) -> None:
    plain = target.client.post("/generate", json={"prompt": "a</s>b", "max_new_tokens": 2}).json()

    # Control tokens would be one id each; as text `</s>` is at least two of this byte-level tokenizer's.
    assert plain["prompt_tokens"] >= 1 + len("a</s>b") - 1
