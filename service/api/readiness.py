"""Whether the database answers, asked in a thread of its own: those of the other routes may all be waiting for it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

ANSWER_S = 2.0  # less than probes wait


class Readiness:
    """One look at a time, however many ask; who asks during a look is given what it finds. Used from one event loop."""

    def __init__(self, look: Callable[[], str], *, patience_s: float = ANSWER_S) -> None:
        self._look, self._patience_s = look, patience_s
        self._found: asyncio.Future[str] | None = None

    async def check(self) -> str:
        """What the look found, or that it takes too long; then it goes on, and the next who asks is given its end."""
        if self._found is None or self._found.done():
            self._found = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._run, args=(self._found,), name="errata-ready", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(self._found), self._patience_s)
        except TimeoutError:
            return f"no answer within {self._patience_s:g} s"

    def _run(self, found: asyncio.Future[str]) -> None:
        try:
            seen = self._look()
        except Exception as error:  # a future without an end would be the last look of all
            seen = f"the look failed ({type(error).__name__})"
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever asked
            found.get_loop().call_soon_threadsafe(_tell, found, seen)


def _tell(found: asyncio.Future[str], seen: str) -> None:
    if not found.done():
        found.set_result(seen)
