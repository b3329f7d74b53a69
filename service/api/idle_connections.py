"""Which open connections may be closed to let a new one in: those that nobody is being answered on, longest first."""

import asyncio
from collections import OrderedDict
from enum import StrEnum
from typing import Protocol


class ConnectionState(StrEnum):
    """What a connection that is not being answered does, in the order in which they yield."""

    IDLE = "idle"  # between two requests
    OWES = "owes"  # the client has not sent its first request, or has not sent all of another


class Connection(Protocol):
    """What is closed."""

    transport: asyncio.Transport


class IdleConnections:
    """The connections that may yield, each kind in the order in which they came to stand so. Each call takes the same short time,
    however many there are.
    """

    def __init__(self) -> None:
        self._standing: dict[Connection, ConnectionState] = {}
        # A dict would walk over all that left from its front before.
        self._queues: dict[ConnectionState, OrderedDict[Connection, None]] = {
            standing: OrderedDict() for standing in ConnectionState
        }

    def set_state(self, connection: Connection, standing: ConnectionState | None) -> None:
        """Say how a connection stands now; None: it is being answered, and must not be closed."""
        before = self._standing.get(connection)
        if standing is before:
            return
        if before is not None:
            del self._queues[before][connection]
            del self._standing[connection]
        if standing is not None:
            self._queues[standing][connection] = None
            self._standing[connection] = standing

    def close_longest_idle(self) -> Connection | None:
        """Close the connection that yields first and name it; None if all are being answered."""
        for queue in self._queues.values():
            if queue:
                found = next(iter(queue))
                self.set_state(found, None)
                found.transport.abort()
                return found
        return None
