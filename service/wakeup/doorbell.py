"""What a doorbell does. A ring is a hint that a row waits; who misses it finds the row at the next sweep."""

from typing import Protocol


class Doorbell(Protocol):
    """Rung by anybody, waited for by one worker. None of these raises because of the outside world."""

    def ring(self, edit_id: str) -> None:
        """Tell the worker that an edit waits. Takes some tens of milliseconds at most, whatever is broken."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until somebody rings, at most `timeout_s` seconds; whether somebody did. Rings may be joined."""

    def heard(self) -> None:
        """Say that what was rung for is done. Rings that were never said to be heard ring again for the next worker."""

    def close(self) -> None:
        """End a wait under way, and give back connections."""
