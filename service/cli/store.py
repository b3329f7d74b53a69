"""The commands that look into a store themselves: what a server is not needed for, and must not be started for."""

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

OPERATOR = "operator"  # the author of what is done here
output = Console(highlight=False, soft_wrap=True)
versions = typer.Typer(help="Look after the versions of a store.", no_args_is_help=True)


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store that the settings name, as it is. Raises Refused if there is none, Unavailable if it is not migrated."""
    store = Store(settings.store_url)
    try:
        if store.is_sqlite and not Path(store.url.database or "").is_file():
            raise Refused("there is no database yet: start the server once, or give --data-dir or --database-url")
        with store.read() as connection:
            if not is_current(connection):
                raise Unavailable("the database is not of the newest form: run `errata migrate` first")
        yield store
    finally:
        store.close()


@versions.command("verify")
def verify_versions(
    heal: Annotated[bool, typer.Option("--heal", help="Unmark versions called corrupt whose bytes are right.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Read every checkpoint that a version needs and say how it is; exit code 1 if one is not good. Works beside a server."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    with report_errors(), open_store(settings) as store:
        store_identity.check_same_store(store, settings.checkpoints)
        with errors.status("reading") as shown:
            found = verify.verify(
                store, settings.checkpoints, progress=lambda done, of: shown.update(f"{done} of {of} checkpoints read")
            )
        healed = verify.heal(store, found, author=OPERATOR, now=store.clock()) if heal else []
        if healed:
            found = verify.verify(store, settings.checkpoints)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"healed": healed}, indent=1))
    else:
        _show(found, healed)
    if not all(one.is_good for one in found.checkpoints):
        raise typer.Exit(FAILED)


def adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the data folder the database's own although they do not know each other: after a restoration, or a loss."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    with report_errors(), open_store(settings) as store:
        store.lock_folder()
        needed = verify.verify(store, settings.checkpoints).checkpoints
        there = sum(one.is_right for one in needed)
        mark = store_identity.read_mark_or_none(settings.checkpoints)
        whose = "no store's" if mark is None else f"store {mark.store}'s"
        output.print(f"The folder is {whose}. It holds {there} of the {len(needed)} checkpoints that the database names.")
        if not yes:
            typer.confirm("Make it the database's own?", abort=True)
        name = store_identity.adopt(store, settings.checkpoints)
    output.print(f"The data folder belongs to store {name} now.")
    if there < len(needed):
        output.print(
            "Versions whose checkpoints are not there cannot answer. Restore the files, or start the server and roll back to a"
            ' version that can: POST /admin/rollback {"to": 0, "requeue": true, "reason": …} lets every edit be learned again.'
        )


def register(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.add_typer(versions, name="versions")
    app.command()(adopt)


def _show(found: Verification, healed: list[int]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("versions", "checkpoint", "is"):
        table.add_column(name, no_wrap=name != "is")
    for one in found.checkpoints:
        numbers = ", ".join(str(number) for number in one.versions)
        said = ": ".join(part for part in (str(one.state), one.detail) if part)
        marked = f"; the database calls {', '.join(map(str, one.marked))} corrupt" if one.marked else ""
        table.add_row(numbers, one.digest[:12], escape(said + marked))
    output.print(table)
    if healed:
        output.print(f"Not corrupt any more: {', '.join(map(str, healed))}")
    good = sum(one.is_good for one in found.checkpoints)
    output.print(f"{good} of {len(found.checkpoints)} checkpoints are good.")
    if found.unnamed:
        some = ", ".join(found.unnamed[:5])
        output.print(f"{len(found.unnamed)} files that no version names are left alone, such as {some}", markup=False)
