"""Progress of a command, printed on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from service.client.shapes import JobData

PRINT_EVERY_S = 10.0  # between two lines where there is no terminal

errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def show_progress(first: str) -> Iterator[Callable[[str], None]]:
    """A function that prints a progress text on standard error: on a terminal in one line that changes, elsewhere at most one
    line every 10 s. `first` is the text at the start.
    """
    if errors.is_terminal:
        with errors.status(escape(first)) as status:
            yield lambda text: status.update(escape(text))
        return
    printed_at = time.monotonic()

    def print_now_and_then(text: str) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= PRINT_EVERY_S:
            printed_at = time.monotonic()
            errors.print(text, markup=False)

    yield print_now_and_then


def show_job(progress: Callable[[str], None]) -> Callable[[JobData], None]:
    """A function that prints what a job's log has more than before, and gives `progress` its share and stage."""
    printed = 0

    def show(state: JobData) -> None:
        nonlocal printed
        for line in state["log"][printed:]:
            errors.print(line["message"], style="dim", markup=False)
        printed = len(state["log"])
        progress(f"{state['progress']:.0%} {state['stage'] or ''}")

    return show
