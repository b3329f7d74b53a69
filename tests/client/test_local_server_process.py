"""The process of a local server and the command that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTER = """
import sys
from pathlib import Path
from service.client.local_server import LocalServer

server = LocalServer({}, Path(sys.argv[1]), command=[sys.executable, "-c", "import time; time.sleep(120)"])
server.launch()
print(server.process.pid, flush=True)
sys.stdin.read()
"""
PATIENCE_S = 30.0


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_server_ends_with_the_command_that_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        assert is_running(server)

        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()

    until = time.monotonic() + PATIENCE_S
    while is_running(server) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(server)
