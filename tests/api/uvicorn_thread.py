"""uvicorn in a thread of this process, from its open port to its end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

OPENS_IN_S = 30
ENDS_IN_S = 30


@contextmanager
def serve_in_thread(config: uvicorn.Config) -> Iterator[int]:
    """Serve until the block ends. Yields the port. Afterwards the thread has ended."""
    server = _AnnouncingServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert server.opened.wait(OPENS_IN_S), "the server did not come up"
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(ENDS_IN_S)
    assert not thread.is_alive(), "the server did not end"


class _AnnouncingServer(uvicorn.Server):
    """uvicorn's server, which says when its port is open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.opened = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.opened.set()
