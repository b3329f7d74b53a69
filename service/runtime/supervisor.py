"""Telling whoever runs this process how it is (the notify protocol of systemd), and ending it when its event loop does not turn.

Both go by beats of the event loop. Without beats systemd kills and restarts the process; elsewhere the process ends itself,
from a thread that needs no interpreter, so that it works while one call holds the interpreter for ever.
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
    """`address` is the socket that is told, or None; `limit_s` the seconds after which whoever listens there misses a beat, and
    `frozen_s` those after which this process ends itself; 0 for never.
    """

    def __init__(self, address: str | None = None, *, limit_s: float = 0, frozen_s: float = 0) -> None:
        self._address, self._limit_s, self._frozen_s = address, limit_s, frozen_s
        # Half of the limit is systemd's own advice; a quarter for one's own end, which is counted from the last beat.
        self._every_s = min(limit_s / 2 or math.inf, frozen_s / 4 or math.inf)
        self._next = 0.0
        self._socket: socket.socket | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], *, frozen_s: float = 0) -> Self:
        """The one that a process is told of by its environment; one that is told nothing."""
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "0")
        limit_s = int(microseconds) / 1e6 if is_meant and microseconds.isascii() and microseconds.isdigit() else 0
        return cls(environment.get("NOTIFY_SOCKET"), limit_s=limit_s, frozen_s=frozen_s)

    def ready(self) -> None:
        """Say that requests are answered from now on."""
        self._tell("READY=1")
        self.beat()

    def beat(self) -> None:
        """Say that the event loop turns. To be called by the loop itself, as often as one likes."""
        now = time.monotonic()
        if now < self._next or self._every_s == math.inf:
            return
        self._next = now + self._every_s
        if self._limit_s:
            self._tell("WATCHDOG=1")
        if self._frozen_s:
            faulthandler.dump_traceback_later(self._frozen_s, exit=True)

    def stopping(self) -> None:
        """Say that this is an orderly end, which no missing beat shall cut off."""
        self._every_s = math.inf
        if self._frozen_s:
            faulthandler.cancel_dump_traceback_later()
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str) -> None:
        """Send one datagram. That it cannot be sent is logged and does nobody harm here."""
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            # A name that begins with @ is in the abstract namespace, where a zero byte stands for it.
            is_abstract = self._address.startswith("@")
            self._socket.sendto(state.encode("ascii"), f"\0{self._address[1:]}" if is_abstract else self._address)
        except OSError as error:
            log.warning("the supervisor cannot be told", state=state, error=type(error).__name__)
