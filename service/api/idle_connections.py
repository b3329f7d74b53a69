"""Open connections that may be closed for a new one: those without a request in progress, the longest idle first."""

import asyncio
from collections import OrderedDict
from enum import StrEnum
from typing import Protocol


class ConnectionState(StrEnum):
    """The state of a connection without a request in progress, in the order in which connections are closed."""

    IDLE = "idle"  # between two requests
    INCOMPLETE = "incomplete"  # the client has not sent its first request, or not the whole of a later one


class Connection(Protocol):
    """A connection that can be closed."""

    transport: asyncio.Transport


class IdleConnections:
    """The connections that may be closed, by state and in the order in which they entered it. Every call takes constant time."""

    def __init__(self) -> None:
        self._states: dict[Connection, ConnectionState] = {}
        # A plain dict would scan the entries that were deleted at its front.
        self._queues: dict[ConnectionState, OrderedDict[Connection, None]] = {state: OrderedDict() for state in ConnectionState}

    def set_state(self, connection: Connection, state: ConnectionState | None) -> None:
        """Set the state of a connection. None: it is being answered and must not be closed."""
        before = self._states.get(connection)
        if state is before:
            return
        if before is not None:
            del self._queues[before][connection]
            del self._states[connection]
        if state is not None:
            self._queues[state][connection] = None
            self._states[connection] = state

    def close_longest_idle(self) -> Connection | None:
        """Close the first connection in order and return it; None if all are being answered."""
        for queue in self._queues.values():
            if queue:
                connection = next(iter(queue))
                self.set_state(connection, None)
                connection.transport.abort()
                return connection
        return None
