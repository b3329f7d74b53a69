"""What a process has cost so far."""

import os
import subprocess
import sys
import time

import pytest

from service.bench.process_figures import read_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_processor_time_and_memory_of_this_process_are_read() -> None:
    before = read_process(os.getpid())
    held = bytearray(64_000_000)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass

    after = read_process(os.getpid())

    assert before is not None
    assert after is not None
    assert 0.05 < after.cpu_s - before.cpu_s < 5.0
    assert after.peak_mb > len(held) / 2**20


def test_a_process_that_has_ended_has_no_figures() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert read_process(ended.pid) is None
