"""What the commands share: options, the reading of settings, and errors as sentences and exit codes.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage (also: a refused setting).
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
    from service.client.errata_client import ErrataClient

DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.EISDIR)
FAILED = 1
USAGE = 2
MAX_DIGITS = 18  # of a number that every database can hold

DataDir = Annotated[Path | None, typer.Option(help="Folder of the database, the checkpoints and the neutral sentences.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="postgresql://… or sqlite:///…; default: a SQLite file in the data folder.")
]
RedisUrl = Annotated[str | None, typer.Option(help="redis://…; default: the buffer is in the server's process.")]
Model = Annotated[
    str | None,
    typer.Option(help="`atlas` (embedded), a local folder, a GGUF file, a name of `errata models list`, or ORG/NAME[@revision]."),
]
ServerUrl = Annotated[
    str | None, typer.Option("--server", help="Address of a running server; default: a local server on the data folder.")
]


def read_settings(**overrides: object) -> Settings:
    """The settings of the environment, overridden by `overrides`; a refused setting ends the command with exit code 2."""
    try:
        settings = load_settings(**overrides)
    except Refused as refused:
        errors.print(refused.message, style="red", markup=False)
        raise typer.Exit(USAGE) from None
    configure_logging(settings.log_level)
    return settings


def parse_version(text: str) -> int | Literal["head", "base"]:
    """The version that `--version` names; any other text ends the command with exit code 2."""
    match text:
        case "head" | "base":
            return text
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    raise typer.BadParameter("must be a number, head or base", param_hint="--version")


@contextmanager
def open_client_with_progress(server: str | None, settings: Settings) -> Iterator["ErrataClient"]:
    """A client of the server at an address, or of a local server, with the progress of its start."""
    from service.client.local_server import open_client

    with ExitStack() as stack:
        with show_progress("starting a local server") as progress:
            client = stack.enter_context(open_client(server, settings, progress))
        yield client


@contextmanager
def report_errors() -> Iterator[None]:
    """Print a ServiceError or an error of the disk as one sentence, and end with exit code 1. Any other error is a programming
    error and keeps its traceback.
    """
    try:
        yield
    except ServiceError as error:
        errors.print(error.message, style="red", markup=False)
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.errno not in DISK_ERRORS or error.filename is None:
            raise
        errors.print(f"{error.filename}: {os.strerror(error.errno).lower()}", style="red", markup=False)
        raise typer.Exit(FAILED) from None
