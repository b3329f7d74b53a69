"""How far a command is, said on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

SAY_S = 10.0  # between two lines where there is no terminal

errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def telling(first: str) -> Iterator[Callable[[str], None]]:
    """Say how far something is, on standard error: on a terminal in one line that changes, elsewhere in a line now and then."""
    if errors.is_terminal:
        with errors.status(escape(first)) as shown:
            yield lambda text: shown.update(escape(text))
        return
    said_at = time.monotonic()

    def say(text: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SAY_S:
            said_at = time.monotonic()
            errors.print(text, markup=False)

    yield say
