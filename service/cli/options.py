"""What the commands share: options, how settings are read, and how an error becomes a sentence and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage (also: a setting that is refused).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.client.progress import errors, show_progress
from service.domain.errors import Refused, ServiceError
from service.settings import Settings, load_settings
from service.telemetry.log import configure_logging

if TYPE_CHECKING:
    import httpx

OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.EISDIR)
FAILED = 1
USAGE = 2
MOST_DIGITS = 18  # a number that every database can hold

DataDir = Annotated[Path | None, typer.Option(help="Folder of the database, the checkpoints and the neutral sentences.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="postgresql://… or sqlite:///…; default: a SQLite file in the data folder.")
]
RedisUrl = Annotated[str | None, typer.Option(help="redis://…; default: the buffer is in the server's process.")]
Model = Annotated[str | None, typer.Option(help="`atlas` (embedded), a local folder, or a Hugging Face id.")]
ServerUrl = Annotated[
    str | None, typer.Option("--server", help="Address of a running server; default: one is started on the data folder.")
]


def read_settings(**given: object) -> Settings:
    """The settings of the environment under those given; a refused one ends the command with exit code 2."""
    try:
        settings = load_settings(**given)
    except Refused as refused:
        errors.print(refused.message, style="red", markup=False)
        raise typer.Exit(USAGE) from None
    configure_logging(settings.log_level)
    return settings


def parse_version(text: str) -> int | Literal["head", "base"]:
    """What `--version` names; anything else ends the command with exit code 2."""
    match text:
        case "head" | "base":
            return text
    if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
        return int(text)
    raise typer.BadParameter("must be a number, head or base", param_hint="--version")


@contextmanager
def open_client_with_progress(server: str | None, settings: Settings) -> Iterator["httpx.Client"]:
    """A client of the server at an address, or of one of the command's own, whose start is told."""
    from service.client.local_server import open_client

    with ExitStack() as opened:
        with show_progress("starting a server of the command's own") as progress:
            client = opened.enter_context(open_client(server, settings, progress))
        yield client


@contextmanager
def report_errors() -> Iterator[None]:
    """Errors raised on purpose, here or by a server, and what the disk refuses become one sentence and exit code 1; anything else
    is a fault of ours and keeps its traceback.
    """
    import httpx  # here, because `errata version` need not wait for it

    from service.client.local_server import error_sentence

    try:
        yield
    except (ServiceError, httpx.HTTPError) as error:
        errors.print(error_sentence(error), style="red", markup=False)
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.errno not in OF_THE_DISK or error.filename is None:
            raise
        errors.print(f"{error.filename}: {os.strerror(error.errno).lower()}", style="red", markup=False)
        raise typer.Exit(FAILED) from None
