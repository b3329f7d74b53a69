"""The commands that open a store themselves: they need no server and start none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.options import FAILED, DatabaseUrl, DataDir, read_settings, report_errors
from service.client.progress import errors
from service.domain.errors import Refused, Unavailable
from service.lifecycle import store_identity, verify
from service.lifecycle.verify import Verification
from service.settings import Settings
from service.store.database import Store
from service.store.migrate import is_current

OPERATOR = "operator"  # the author of changes by these commands
output = Console(highlight=False, soft_wrap=True)
versions = typer.Typer(help="Check the versions of a store.", no_args_is_help=True)


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store of the settings. Raises Refused if there is no database, Unavailable if it is not migrated."""
    store = Store(settings.store_url)
    try:
        if store.is_sqlite and not Path(store.url.database or "").is_file():
            raise Refused("there is no database yet: start the server once, or give --data-dir or --database-url")
        with store.read() as connection:
            if not is_current(connection):
                raise Unavailable("the database does not have the newest schema: run `errata migrate` first")
        yield store
    finally:
        store.close()


@versions.command("verify")
def verify_versions(
    heal: Annotated[bool, typer.Option("--heal", help="Unmark versions marked corrupt whose bytes are right.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Read every checkpoint that a version needs and print its state; exit code 1 if one is bad. Works beside a server."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    with report_errors(), open_store(settings) as store:
        store_identity.check_same_store(store, settings.checkpoints)
        with errors.status("reading") as status:
            report = verify.verify(
                store, settings.checkpoints, progress=lambda done, of: status.update(f"{done} of {of} checkpoints read")
            )
        healed = verify.heal(store, report, author=OPERATOR, now=store.clock()) if heal else []
        if healed:
            report = verify.verify(store, settings.checkpoints)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"healed": healed}, indent=1))
    else:
        _print(report, healed)
    if not all(checkpoint.is_good for checkpoint in report.checkpoints):
        raise typer.Exit(FAILED)


def adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the data folder belong to the database although their marks differ, after a restoration or a loss."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    with report_errors(), open_store(settings) as store:
        store.lock_folder()
        needed = verify.verify(store, settings.checkpoints).checkpoints
        present = sum(checkpoint.is_right for checkpoint in needed)
        mark = store_identity.read_mark_or_none(settings.checkpoints)
        owner = "no store" if mark is None else f"store {mark.store_id}"
        output.print(
            f"The folder belongs to {owner}. It holds {present} of the {len(needed)} checkpoints that the database names."
        )
        if not yes:
            typer.confirm("Make it belong to the database?", abort=True)
        name = store_identity.adopt(store, settings.checkpoints)
    output.print(f"The data folder belongs to store {name} now.")
    if present < len(needed):
        output.print(
            "Versions whose checkpoints are not there cannot answer. Restore the files, or start the server and roll back to a"
            ' version that can: POST /admin/rollback {"to": 0, "requeue": true, "reason": …} lets every edit be learned again.'
        )


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.add_typer(versions, name="versions")
    app.command()(adopt)


def _print(report: Verification, healed: list[int]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("versions", "checkpoint", "is"):
        table.add_column(name, no_wrap=name != "is")
    for checkpoint in report.checkpoints:
        numbers = ", ".join(str(number) for number in checkpoint.versions)
        state = ": ".join(part for part in (str(checkpoint.state), checkpoint.detail) if part)
        marked = f"; the database calls {', '.join(map(str, checkpoint.marked))} corrupt" if checkpoint.marked else ""
        table.add_row(numbers, checkpoint.digest[:12], escape(state + marked))
    output.print(table)
    if healed:
        output.print(f"Not corrupt any more: {', '.join(map(str, healed))}")
    good = sum(checkpoint.is_good for checkpoint in report.checkpoints)
    output.print(f"{good} of {len(report.checkpoints)} checkpoints are good.")
    if report.unnamed:
        examples = ", ".join(report.unnamed[:5])
        output.print(f"{len(report.unnamed)} files that no version names are left alone, such as {examples}", markup=False)
