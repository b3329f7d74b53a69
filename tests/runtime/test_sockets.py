"""The port is bound before anything is loaded, and the reason why it cannot be bound is one sentence."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.client.local_server import free_port
from service.domain.errors import Conflict, Refused, ServiceError
from service.runtime.server import UvicornServer, uvicorn_config
from service.runtime.sockets import bind_port
from service.settings import Settings, environment_without_settings
from tests.api.edge_server import edge_app


def test_a_port_is_bound_and_released_and_no_call_is_answered_meanwhile() -> None:
    port = free_port()

    with bind_port("127.0.0.1", port) as (first,):
        assert first.getsockname() == ("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    with bind_port("127.0.0.1", port):
        pass


def test_a_name_is_bound_at_each_of_its_addresses() -> None:
    with bind_port("localhost", free_port()) as sockets:
        assert "127.0.0.1" in {bound.getsockname()[0] for bound in sockets}


@pytest.mark.parametrize(
    ("host", "kind", "option"),
    [("no-such-host.invalid", Refused, "--host"), ("192.0.2.1", Refused, "--host"), ("x" * 300, Refused, "--host")],
)
def test_an_address_that_is_not_of_this_machine_is_refused(host: str, kind: type[ServiceError], option: str) -> None:
    with pytest.raises(kind, match=option), bind_port(host, 0):
        pass


def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} of 127.0.0.1 is in use.*--port"), bind_port("127.0.0.1", port):
            pass


def test_the_second_of_two_servers_bound_to_a_port_reports_it_too() -> None:
    settings = Settings(port=free_port())
    with bind_port(settings.host, settings.port) as sockets, socket.create_server((settings.host, settings.port)):
        with pytest.raises(Conflict, match="is in use"):
            UvicornServer(uvicorn_config(edge_app(settings), settings)).run(sockets)


def test_a_port_in_use_ends_the_server_with_exit_code_1_before_it_loads_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        command = [sys.executable, "-X", "importtime", "-m", "service", "serve", "--port", str(other.getsockname()[1])]
        environment = environment_without_settings() | {"ERRATA_DATA_DIR": str(tmp_path / "data")}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    lines = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert (ended.returncode, len(lines)) == (1, 1), lines
    assert "is in use" in lines[0]
    assert "| torch\n" not in ended.stderr
    assert not (tmp_path / "data").exists()
