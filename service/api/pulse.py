"""Whether the database answers, asked for by those who must be told in time whatever the answer.

One look at a time, in a thread of its own: however often it is asked for, it takes no thread of the requests and no more than one
connection.
"""

import threading
import time
from collections.abc import Callable

from service.domain.errors import Unavailable

WITHIN_S = 2.0
SILENT = "The database does not answer."


class Pulse:
    """`look` reads something small, or raises Unavailable."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._under_way: _Look | None = None

    def state(self, within_s: float = WITHIN_S) -> str:
        """`ok`, or what is wrong with the database, after `within_s` at most; who asks beside a look gets its outcome."""
        with self._lock:
            if self._under_way is None or self._under_way.ended.is_set():
                self._under_way = _Look(self._look)
            look = self._under_way
        look.ended.wait(max(0.0, look.began + within_s - time.monotonic()))
        return look.found if look.ended.is_set() else SILENT


class _Look:
    """One look, and what it found once it has ended."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.began = time.monotonic()
        self.found = "ok"
        self.ended = threading.Event()
        self._look = look
        threading.Thread(target=self._run, name="errata-pulse", daemon=True).start()

    def _run(self) -> None:
        try:
            self._look()
        except Unavailable as error:
            self.found = error.message
        except Exception:
            self.found = "The database cannot be read."
        finally:
            self.ended.set()
