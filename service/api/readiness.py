"""Whether the database answers, checked in a thread of its own, because all threads of the routes may be waiting for it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

ANSWER_S = 2.0  # less than the timeout of health probes


class Readiness:
    """Concurrent checks share one query of the database. Used from one event loop."""

    def __init__(self, query: Callable[[], str], *, patience_s: float = ANSWER_S) -> None:
        self._query, self._patience_s = query, patience_s
        self._result: asyncio.Future[str] | None = None

    async def check(self) -> str:
        """The result of the query, or a sentence if it takes too long. The query then continues, and the next check shares it."""
        if self._result is None or self._result.done():
            self._result = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._run, args=(self._result,), name="errata-ready", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(self._result), self._patience_s)
        except TimeoutError:
            return f"no answer within {self._patience_s:g} s"

    def _run(self, result: asyncio.Future[str]) -> None:
        try:
            text = self._query()
        except Exception as error:  # a future that never ends would block all later checks
            text = f"the check failed ({type(error).__name__})"
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and its checks with it
            result.get_loop().call_soon_threadsafe(_set_result, result, text)


def _set_result(result: asyncio.Future[str], text: str) -> None:
    if not result.done():
        result.set_result(text)
