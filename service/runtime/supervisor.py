"""The process's reports to its supervisor (systemd's notify protocol), and its end when the event loop is blocked.

Both depend on reports of the event loop. Without reports systemd kills and restarts the process. Elsewhere the process ends
itself, from a thread that needs no interpreter and so works while one call holds the interpreter.
"""

import faulthandler
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Self

import structlog

log = structlog.get_logger("errata.server")


class Supervisor:
    """Reports to the socket `address` (None: no reports).

    The supervisor kills the process after `limit_s` seconds without a report; the process ends itself after `frozen_s` seconds
    without one. 0 is never, for both.
    """

    def __init__(self, address: str | None = None, *, limit_s: float = 0, frozen_s: float = 0) -> None:
        self._address, self._limit_s, self._frozen_s = address, limit_s, frozen_s
        # systemd advises half of its limit. The own end is counted from the last report, so a quarter of `frozen_s`.
        self._interval_s = min(limit_s / 2 or math.inf, frozen_s / 4 or math.inf)
        self._next_report = 0.0
        self._socket: socket.socket | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, frozen_s: float = 0) -> Self:
        """The supervisor that systemd's variables name; without them one that gets no reports."""
        is_for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "0")
        limit_s = int(microseconds) / 1e6 if is_for_this_process and microseconds.isascii() and microseconds.isdigit() else 0
        return cls(environment.get("NOTIFY_SOCKET"), limit_s=limit_s, frozen_s=frozen_s)

    def report_ready(self) -> None:
        """Report that requests are answered from now on."""
        self._send("READY=1")
        self.report_alive()

    def report_alive(self) -> None:
        """Report that the event loop runs. The loop calls this often; reports are sent only when one is due."""
        now = time.monotonic()
        if now < self._next_report or self._interval_s == math.inf:
            return
        self._next_report = now + self._interval_s
        if self._limit_s:
            self._send("WATCHDOG=1")
        if self._frozen_s:
            faulthandler.dump_traceback_later(self._frozen_s, exit=True)

    def report_stopping(self) -> None:
        """Report an orderly end; missing reports have no effect from now on."""
        self._interval_s = math.inf
        if self._frozen_s:
            faulthandler.cancel_dump_traceback_later()
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str) -> None:
        """Send one datagram. A failure is logged and has no other effect."""
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            # An address that begins with @ is in the abstract namespace; there a zero byte replaces the @.
            is_abstract = self._address.startswith("@")
            self._socket.sendto(state.encode("ascii"), f"\0{self._address[1:]}" if is_abstract else self._address)
        except OSError as error:
            log.warning("the supervisor cannot be told", state=state, error=type(error).__name__)
