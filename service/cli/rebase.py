"""`errata rebase`: another base model on purpose. The edits go to it in a major retrain, and are reported one by one."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.options import (
    FAILED,
    DatabaseUrl,
    DataDir,
    open_client_with_progress,
    read_settings,
    report_errors,
)
from service.cli.store import OPERATOR, open_store
from service.client.errata_client import ErrataClient
from service.client.progress import errors, show_job, show_progress
from service.client.shapes import JobData
from service.domain.edit import Edit, EditStatus
from service.lifecycle.rebase import REASON, Rebase, read_rebase
from service.lifecycle.store_identity import read_pinned
from service.settings import Settings
from service.store import jobs

OUTCOMES = {EditStatus.APPLIED: "taken", EditStatus.CONSOLIDATED: "taken", EditStatus.FAILED: "refused"}
OUTCOMES |= {EditStatus.DEFERRED: "waits", EditStatus.QUEUED: "waits", EditStatus.APPLYING: "waits"}
output = Console(highlight=False, soft_wrap=True)


def rebase(
    model: Annotated[str, typer.Option(help="The model to take the store to, named as for `errata serve`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the edits as JSON.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Take the store to another base model: its edits are retrained on it. No server may run. Safe to repeat; exit code 1 if an
    edit was not taken."""
    settings = read_settings(model=model, data_dir=data_dir, database_url=database_url)
    with report_errors():
        _change_base(settings, is_asked=not yes)
        done = _read(settings)
        if done is None:
            output.print("The store was made with this base model: there is nothing to do.")
            return
        if _is_retrain_active(settings, done) or _waiting(done):
            with open_client_with_progress(None, settings) as client:
                _retrain(client, settings, done)
        done = _read(settings)
    assert done is not None
    if as_json:
        typer.echo(json.dumps([_describe(edit) for edit in done.edits], indent=1))
    else:
        _print(done)
    if any(_outcome(edit) in ("waits", "refused") for edit in done.edits):
        raise typer.Exit(FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(rebase)


def _change_base(settings: Settings, *, is_asked: bool) -> None:
    from service.runtime.rebasing import rebase_store  # here, because it loads torch, which takes ten seconds

    with open_store(settings) as store:
        before = read_pinned(store)
        if is_asked and before is not None and before.base_name != settings.model:
            question = (
                f"Take the store from {before.base_name} to {settings.model}? The versions that it has now become mere records."
            )
            typer.confirm(question, abort=True, err=True)
        with errors.status("loading the model and checking the edits"):
            is_changed = rebase_store(store, settings, author=OPERATOR)
    if is_changed:
        errors.print("The store is pinned to the new base model; its edits wait for the first retrain on it.", markup=False)


def _read(settings: Settings) -> Rebase | None:
    with open_store(settings) as store, store.read() as connection:
        return read_rebase(connection)


def _is_retrain_active(settings: Settings, done: Rebase) -> bool:
    if done.job_id is None:
        return False
    with open_store(settings) as store, store.read() as connection:
        return jobs.get(connection, done.job_id, brief=True).finished_at is None


def _retrain(client: ErrataClient, settings: Settings, done: Rebase) -> None:
    """Let the server retrain until no edit waits, or a retrain takes no further one in. A retrain that is not accepted leaves out
    half of its edits; the next one finds out which of them it was. Whoever interrupts this leaves the rest to the next server.
    """
    is_active = _is_retrain_active(settings, done)
    job_id = done.job_id if is_active and done.job_id is not None else client.retrain(REASON)["id"]
    waiting: set[str] | None = None
    while True:
        ended = _follow(client, job_id)
        before, waiting = waiting, _waiting(_read(settings))
        if ended["status"] != "done" or not waiting or waiting == before:
            return
        job_id = client.retrain(REASON)["id"]


def _follow(client: ErrataClient, job_id: str) -> JobData:
    """Wait until a job has ended, well or not, and print its log."""
    with show_progress("waiting") as progress:
        return client.wait_for_job(job_id, on_progress=show_job(progress))


def _waiting(done: Rebase | None) -> set[str]:
    """The edits that wait for a retrain."""
    return set() if done is None else {edit.id for edit in done.edits if edit.status is EditStatus.DEFERRED}


def _outcome(edit: Edit) -> str:
    return OUTCOMES.get(edit.status, str(edit.status))


def _describe(edit: Edit) -> dict[str, object]:
    names = {"id": edit.id, "prompt": edit.prompt, "target": edit.target, "outcome": _outcome(edit)}
    return {**names, "status": str(edit.status), "version": edit.version, "reason": edit.error}


def _print(done: Rebase) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("edit", "prompt", "is", "because"):
        table.add_column(name, no_wrap=name in ("edit", "is"), overflow="fold")
    for edit in done.edits:
        table.add_row(edit.id, escape(edit.prompt), _outcome(edit), escape(edit.error or ""))
    output.print(table)
    taken = sum(_outcome(edit) == "taken" for edit in done.edits)
    output.print(f"{taken} of {len(done.edits)} edits are live on {done.base_name}.", markup=False)
