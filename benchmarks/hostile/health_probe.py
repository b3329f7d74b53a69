"""A process that requests `/health/live` on new connections until stdin closes, and then prints what it saw as JSON.

In a thread beside an attack's clients the probe would wait for their interpreter lock, and tell that delay for the server's.
"""

import http.client
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BEAT_S = 0.02  # between two requests
PATIENCE_S = 300.0  # longest wait for an answer, so that a frozen server shows as a slow answer


@dataclass
class HealthProbe:
    """The answers of `/health/live` during an attack: the seconds of each, and the number of missing or wrong ones."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0


def read_status(url: str, path: str, timeout_s: float = PATIENCE_S) -> int:
    """The status of a GET on a new connection; 0 if there was no answer. httpx would create a TLS context for each connection, in
    tens of milliseconds of processor time.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def probe_until(stop: threading.Event, url: str) -> HealthProbe:
    """Request `/health/live`, as an orchestrator does, until `stop` is set."""
    probe = HealthProbe()
    while not stop.is_set():
        started_at = time.monotonic()
        probe.failures += read_status(url, "/health/live") != 200
        probe.seconds.append(time.monotonic() - started_at)
        if len(probe.seconds) == 1:
            print("begun", flush=True)
        stop.wait(BEAT_S)
    return probe


def main() -> None:
    """The command of the process: its argument is the server's address."""
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    probe = probe_until(stop, sys.argv[1])
    print(json.dumps({"seconds": probe.seconds, "failures": probe.failures}))


if __name__ == "__main__":
    main()
