"""A limit on the pieces of an HTTP/1.1 body: each piece costs the event loop time, whatever its size."""

from typing import Any

import h11

FREE_PIECES = 1_000
PIECE_BYTES = 256  # least mean size of further pieces; a network packet carries about 1,400


class TooManyPieces(h11.RemoteProtocolError):
    """A body came in too many pieces."""


class CountedConnection(h11.Connection):
    """h11's state of a connection, which counts the pieces of each body. `next_event` also raises TooManyPieces."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > FREE_PIECES + self._bytes // PIECE_BYTES:
                raise TooManyPieces("a body in too many pieces", error_status_hint=400)
        return event
