"""HTTP/1.1 with deadlines: a client that sends its request, or reads its answer, too slowly is closed.

uvicorn's keep-alive time does not cover a request that has begun: one byte every few seconds would hold a connection for ever.
What h11 itself refuses (a head over the limit, a line that is no HTTP) is answered with a problem too.
"""

import asyncio
import sys
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.connections import Room, Standing
from service.api.problems import HEAD_TOO_LARGE, MALFORMED, MEDIA_TYPE, Problem
from service.settings import Limits


class DeadlineProtocol(H11Protocol):
    """One connection. `with_limits` makes the class that uvicorn is given."""

    limits: ClassVar[Limits] = Limits()
    room: ClassVar[Room] = Room()
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    @classmethod
    def with_limits(cls, limits: Limits) -> type["DeadlineProtocol"]:
        """This protocol with other limits."""
        return type("DeadlineProtocol", (cls,), {"limits": limits, "room": Room()})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and not self._finds_room():
            transport.abort()
        else:
            self._watch_receiving()
            self.room.note(self, self._standing())

    def handle_events(self) -> None:
        super().handle_events()
        self._watch_receiving()
        self.room.note(self, None if self.transport.is_closing() else self._standing())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop("_sending")

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.note(self, None)
        self._stop("_receiving")
        self._stop("_sending")
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        kind = HEAD_TOO_LARGE if too_large else MALFORMED
        body = Problem(kind, kind.title).body()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=kind.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _finds_room(self) -> bool:
        """Whether another connection was closed for this one."""
        closed = self.room.make()
        self.connections.discard(closed)
        return closed is not None

    def _standing(self) -> Standing | None:
        is_answered = self.cycle is not None and not self.cycle.response_complete
        if is_answered:
            return Standing.OWES if self.conn.their_state is h11.SEND_BODY else None
        return Standing.OWES if self._client_owes() else Standing.IDLE

    def _watch_receiving(self) -> None:
        """Start the clock when the client owes the rest of a request, stop it when it owes nothing; more bytes change nothing."""
        if not self._client_owes():
            self._stop("_receiving")
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self.limits.receive_s, self.transport.abort)

    def _client_owes(self) -> bool:
        if (
            self.conn.their_state is h11.IDLE
        ):  # a fresh connection, or one byte of a head; between requests keep-alive has its own time
            return self.cycle is None or bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY

    def _stop(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
