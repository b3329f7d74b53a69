"""The commands for operators: export, purge and revoke call a server over HTTP; jobs reads a server or the database."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.api.schemas.jobs import JobOut, Kind, Status
from service.background.jobs import cancel_job, estimate_seconds_left, list_jobs
from service.cli.options import (
    DatabaseUrl,
    DataDir,
    Model,
    ServerUrl,
    open_client_with_progress,
    parse_version,
    read_settings,
    report_errors,
)
from service.cli.store import OPERATOR, open_store
from service.client.errata_client import ErrataClient
from service.client.interruption import cancel_on_interrupt
from service.client.progress import errors, show_job, show_progress
from service.client.retries import NO_RETRIES
from service.client.shapes import JobData
from service.domain.errors import Refused, Unavailable
from service.settings import Settings

KINDS_LISTED = ("refit", "retrain", "export")
output = Console(highlight=False, soft_wrap=True)


def export(
    out: Annotated[Path, typer.Option("--out", help="New folder to write to.")],
    version: Annotated[str, typer.Option("--version", help="A number, `head` or `base`.")] = "head",
    consolidate: Annotated[bool, typer.Option("--consolidate", help="Retrain first, and export what that publishes.")] = False,
    mode: Annotated[str, typer.Option("--mode", help="Mode of that retrain: major (from the base) or minor.")] = "major",
    max_shard_size: Annotated[str | None, typer.Option("--max-shard-size", help="Largest file of weights, as in 500MB.")] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Write a version as a Hugging Face checkpoint that `from_pretrained` loads."""
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model)
    number = parse_version(version)
    chosen_mode = _parse_mode(mode)
    name = f"for-{os.getpid()}-{int(time.time())}"
    with report_errors():
        _check_out(out)
        with open_client_with_progress(server, settings) as client:
            job = client.export(number, name=name, consolidate=consolidate, mode=chosen_mode, max_shard_size=max_shard_size)
            result = _follow_job(client, job)["result"] or {}
            _move_export(Path(result["path"]), out)
        output.print(f"Version {result['version']} is in {out}: {result['files']} files, {result['bytes']:,} bytes", markup=False)
        if result.get("warning"):
            errors.print(f"Warning: {result['warning']}", style="bold yellow", markup=False)
            errors.print("On the command line: errata export --consolidate", style="bold yellow", markup=False)


def purge(
    edits: Annotated[list[str], typer.Argument(help="Ids of retracted edits.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Remove older versions, exports and rows that hold edits, and list what cannot be reached. Cannot be undone."""
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model)
    if not yes:
        typer.confirm(f"Remove {len(edits)} edit(s) and every version and export that holds them, for good?", abort=True)
    with report_errors(), open_client_with_progress(server, settings) as client:
        with show_progress("purging"):
            report = client.purge(edits)
        removed = (("versions", report["versions"]), ("checkpoints", report["files"]), ("exports", report["exports"]))
        for name, items in removed:
            output.print(f"{name}: {', '.join(str(item) for item in items) or 'none'}", markup=False)
        output.print(f"rows: {report['rows']}")
        output.print("Not reached from here:")
        for sentence in report["unreachable"]:
            output.print(f"  - {sentence}", markup=False)


def revoke(
    author: Annotated[str, typer.Option("--author", help="Author of the edits.")],
    since: Annotated[
        str, typer.Option("--since", help="Time of the first edit, as in 2026-11-20T12:00:00Z; without a zone: UTC.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason, for the history.")] = "revoked on the command line",
    restore_previous: Annotated[bool, typer.Option("--restore-previous", help="Revive what these edits superseded.")] = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Retract every edit that an author posted since a moment."""
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model)
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise typer.BadParameter("must be a time such as 2026-11-20T12:00:00Z", param_hint="--since") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    with report_errors(), open_client_with_progress(server, settings) as client:
        report = client.revoke(author, moment.isoformat(), reason, restore_previous=restore_previous)
        output.print(f"{len(report['retracted'])} edits were taken back, {report['already']} had been before")
        if report["retracted"]:
            client.wait_for_refits()
            output.print("They are out of the answers; the weights lose them at the next major retrain, which is due now")


def jobs(
    cancel: Annotated[str | None, typer.Option("--cancel", help="Cancel this job.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="apply, refit, retrain or export; default: all but apply.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also apply jobs: almost every edit has one.")] = False,
    status: Annotated[str | None, typer.Option("--status", help="queued, running, done, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Number of jobs.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """List the jobs of the server, newest first, or cancel a job; without --server in the database."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    for name, word, choices in (("--kind", kind, get_args(Kind)), ("--status", status, get_args(Status))):
        if word is not None and word not in choices:
            raise typer.BadParameter(f"must be one of {', '.join(choices)}", param_hint=name)
    kinds = [kind] if kind is not None else [] if everything else list(KINDS_LISTED)
    query: dict[str, Any] = {"limit": limit, "kind": kinds, "status": [] if status is None else [status]}
    with report_errors():
        items = _jobs_of_store(settings, query, cancel) if server is None else _jobs_of_server(server, settings, query, cancel)
    if as_json:
        typer.echo(json.dumps(items, indent=1))
    else:
        output.print(_table(items))


def _jobs_of_server(server: str, settings: Settings, query: dict[str, Any], cancel: str | None) -> list[dict[str, Any]]:
    with open_client_with_progress(server, settings) as client:
        once = _once(client)
        found = islice(once.list_jobs(**query), query["limit"]) if cancel is None else [once.cancel_job(_check_id(cancel))]
        return [dict(job) for job in found]


def _jobs_of_store(settings: Settings, query: dict[str, Any], cancel: str | None) -> list[dict[str, Any]]:
    """The jobs of the database. No server is started for them, because it would open a head and might begin to work on it."""
    with open_store(settings) as store:
        listed = list_jobs(store, **query) if cancel is None else [cancel_job(store, _check_id(cancel), author=OPERATOR)]
        now = store.clock()
    return [JobOut.of(job, estimate_seconds_left(job, now)).model_dump(mode="json") for job in listed]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (export, purge, revoke, jobs):
        app.command()(command)


def _parse_mode(text: str) -> Literal["minor", "major"]:
    match text:
        case "minor" | "major":
            return text
    raise typer.BadParameter("must be major or minor", param_hint="--mode")


def _follow_job(client: ErrataClient, job: JobData) -> JobData:
    """Wait until a job has ended, and print its log. Raises Conflict if it fails; Ctrl-C cancels the job."""
    with show_progress("waiting") as progress, cancel_on_interrupt(lambda: _once(client).cancel_job(job["id"])):
        return client.follow_job(job, on_progress=show_job(progress))


def _once(client: ErrataClient) -> ErrataClient:
    """The client for requests that are not repeated."""
    return client.with_options(retries=NO_RETRIES)


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused("the folder of --out is not empty; give a new one", field="out")


def _move_export(source: Path, out: Path) -> None:
    """Move an export to `out`. To another file system it is copied, and gets its name when the copy is complete."""
    if not source.is_dir():
        raise Unavailable(f"the export is on the server's machine, in {source}: this command cannot move it from there")
    temporary = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rmdir()
        try:
            source.rename(out)
            return
        except OSError:
            pass  # another file system, or not ours to move
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        os.sync()
        temporary.rename(out)
        shutil.rmtree(source, ignore_errors=True)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise Unavailable(f"the export could not be moved to --out; it is in {source}") from None


def _check_id(job_id: str) -> str:
    if not job_id.replace("-", "").isalnum():
        raise Refused("--cancel must be a job's id", field="cancel")
    return job_id


def _table(items: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "kind", "status"):
        table.add_column(name, no_wrap=True)  # --cancel needs the whole id
    table.add_column("what", overflow="fold")
    for job in items:
        kind = " ".join(word for word in (job["mode"], job["kind"]) if word)
        table.add_row(job["id"], kind, job["status"], escape(_describe(job)))
    return table


def _describe(job: dict[str, Any]) -> str:
    """A job beside its status: its progress while it runs, its version or error afterwards, its reason, its author."""
    is_running, is_active = job["status"] == "running", job["status"] in ("queued", "running")
    parts = (
        f"{job['progress']:.0%}" if is_running else "",
        f"{job['seconds_left']:.0f} s left" if job["seconds_left"] is not None else "",
        (job["stage"] or "") if is_active else "",
        f"version {job['version']}" if job["version"] is not None else "",
        job["error"] or job["reason"] or "",
        f"requested by {job['author']}",
    )
    return ", ".join(part for part in parts if part)
