"""The protocol of a doorbell. A ring is a hint that a row waits; a worker that misses a ring finds the row at its next sweep."""

from typing import Protocol


class Doorbell(Protocol):
    """A bell that every process may ring and one worker waits for. No method raises when the bell's server is away."""

    def ring(self, edit_id: str) -> None:
        """Tell the worker that an edit waits. Takes some tens of milliseconds at most, even when the bell's server is away."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most `timeout_s` seconds; whether there was one. Several rings may be joined into one."""

    def acknowledge(self) -> None:
        """Confirm the rings so far: their rows are done. Rings without confirmation ring again for the next worker."""

    def close(self) -> None:
        """End a wait under way and close the connections."""
