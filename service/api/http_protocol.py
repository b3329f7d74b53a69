"""HTTP/1.1 with deadlines: the connection of a client that sends or reads too slowly is closed.

uvicorn's keep-alive timeout does not cover a request that has begun: one byte every few seconds would hold a connection for ever.
Errors that h11 itself raises (a head over the limit, a line that is not HTTP) are answered with a problem too.

A client may close its sending side after a whole request and still wait for the answer. The server sends an interim response
(100) to see whether the client waits. A waiting client ignores the response; the machine of a disconnected client resets the
connection.
"""

import asyncio
import socket
import sys
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.chunk_limit import CountedConnection, TooManyPieces
from service.api.idle_connections import ConnectionState, IdleConnections
from service.api.problems import HEAD_TOO_LARGE, MALFORMED, MEDIA_TYPE, Problem
from service.settings import Limits

READ_BYTES = 65_536  # most bytes read at once, and most bytes that wait behind a request that is being answered
DISCONNECT_CHECK_S = 0.25  # seconds between two checks of a client that closed its sending side


class DeadlineProtocol(H11Protocol):
    """One connection. `with_limits` makes the class for uvicorn."""

    limits: ClassVar[Limits] = Limits()
    idle_connections: ClassVar[IdleConnections] = IdleConnections()
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _disconnect_check: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = CountedConnection(h11.SERVER, self.limits.header_bytes)

    @classmethod
    def with_limits(cls, limits: Limits) -> type["DeadlineProtocol"]:
        """This protocol with other limits and with idle connections of its own."""
        return type("DeadlineProtocol", (cls,), {"limits": limits, "idle_connections": IdleConnections()})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own transports read 256 KiB by default
        if len(self.connections) > self.limits.connections and not self._close_idle():
            transport.abort()
        else:
            self._watch_receiving()
            self.idle_connections.set_state(self, self._state())

    def handle_events(self) -> None:
        super().handle_events()
        self._watch_receiving()
        self.idle_connections.set_state(self, None if self.transport.is_closing() else self._state())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop("_sending")

    def eof_received(self) -> bool:  # type: ignore[override]
        """Close, unless a whole request waits for its answer."""
        if self.cycle is None or self.cycle.response_complete or self.conn.their_state is not h11.DONE:
            return False
        self.cycle.keep_alive = False
        if not self.cycle.response_started and self.scope["http_version"] == "1.1":
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        self._check_disconnect()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle_connections.set_state(self, None)
        self._stop("_receiving")
        self._stop("_sending")
        self._stop("_disconnect_check")
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade to another protocol is not done, and the request is answered as it is (RFC 9110, 7.8). Nothing is logged:
        any client could fill the log.
        """

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # its request has no end, and gets this answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        error = sys.exception()
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        kind = HEAD_TOO_LARGE if too_large else MALFORMED
        in_pieces = isinstance(error, TooManyPieces)
        body = Problem(kind, "The body came in too many small pieces." if in_pieces else kind.title).body()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun, and a second one cannot be sent
            self.transport.close()
            return
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=kind.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _close_idle(self) -> bool:
        """Whether another connection was closed for this one."""
        closed = self.idle_connections.close_longest_idle()
        self.connections.discard(closed)
        return closed is not None

    def _state(self) -> ConnectionState | None:
        is_answered = self.cycle is not None and not self.cycle.response_complete
        if is_answered:
            return ConnectionState.INCOMPLETE if self.conn.their_state is h11.SEND_BODY else None
        return ConnectionState.INCOMPLETE if self._client_owes() else ConnectionState.IDLE

    def _watch_receiving(self) -> None:
        """Start the deadline when a request is incomplete, and stop it when none is. More bytes do not extend it."""
        if not self._client_owes():
            self._stop("_receiving")
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self.limits.receive_s, self.transport.abort)

    def _client_owes(self) -> bool:
        """Whether the server waits for bytes of a request."""
        # A new connection, or one byte of a head. Between requests the keep-alive timeout applies.
        if self.conn.their_state is h11.IDLE:
            return self.cycle is None or bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY

    def _check_disconnect(self) -> None:
        """Abort the connection once the client's machine has reset it. Only this check sees a reset: nothing is read."""
        connection_socket: socket.socket = self.transport.get_extra_info("socket")
        if connection_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._disconnect_check = self.loop.call_later(DISCONNECT_CHECK_S, self._check_disconnect)

    def _stop(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
