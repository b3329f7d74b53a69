"""Ctrl-C in a command that follows a job or an evaluation: the server is asked to cancel it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from service.domain.errors import ServiceError


@contextmanager
def cancel_on_interrupt(cancel: Callable[[], object]) -> Iterator[None]:
    """Inside, Ctrl-C calls `cancel` once and then raises KeyboardInterrupt, also where the server refuses to cancel."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(ServiceError):
            cancel()
        raise
