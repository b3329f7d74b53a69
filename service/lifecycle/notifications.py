"""Notifying callers that an edit is settled and that this process answers with it. A waiting call holds no thread."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable

SLICE_S = 1.0  # a server that stops does not keep its callers for longer


class Announcer:
    """Threads announce, coroutines wait. An announcement without a waiting call is forgotten: the row is the truth."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    async def wait(
        self,
        edit_id: str,
        timeout_s: float,
        *,
        is_settled: Callable[[str], bool] | None = None,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until an edit is announced, at most `timeout_s` seconds; return whether it was.

        `is_settled` runs once in a thread and may read the store. It runs after this call has begun to listen, so that an edit
        that settles in between is not missed. `is_given_up` is called every SLICE_S seconds, and ends the wait.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            self._waiting.setdefault(edit_id, []).append(entry)
        try:
            if is_settled is not None and await asyncio.to_thread(is_settled, edit_id):
                return True
            until = loop.time() + timeout_s
            while (left_s := until - loop.time()) > 0 and not is_given_up() and not future.done():
                await asyncio.wait((future,), timeout=min(left_s, SLICE_S))
            return future.done()
        finally:
            self._forget(edit_id, entry)

    def announce(self, edit_ids: Iterable[str]) -> None:
        """Wake every call that waits for one of these edits. May be called from any thread."""
        with self._lock:
            entries = [entry for edit_id in edit_ids for entry in self._waiting.pop(edit_id, ())]
        for loop, future in entries:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(_resolve, future)

    def awaited_ids(self) -> tuple[str, ...]:
        """The edits that calls wait for. The worker checks whether another process has settled them."""
        with self._lock:
            return tuple(self._waiting)

    def _forget(self, edit_id: str, entry: tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]) -> None:
        with self._lock:
            entries = self._waiting.get(edit_id, [])
            if entry in entries:
                entries.remove(entry)
            if not entries:
                self._waiting.pop(edit_id, None)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
