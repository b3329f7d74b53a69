"""The `errata` command. Each command reads the settings, calls one function, and sets an exit code."""

import os
from typing import Annotated

import structlog
import typer

from service import __version__
from service.cli.admin import register as register_admin
from service.cli.bench import app as bench
from service.cli.edits import register as register_edits
from service.cli.evaluate import register as register_eval
from service.cli.locate import locate
from service.cli.models import app as models
from service.cli.options import FAILED, DatabaseUrl, DataDir, Model, RedisUrl, read_settings, report_errors
from service.cli.rebase import register as register_rebase
from service.cli.store import register as register_store
from service.domain.edit import AUTO
from service.editors.registry import list_methods
from service.runtime.sockets import bind_port
from service.runtime.supervisor import Supervisor

log = structlog.get_logger("errata.server")
app = typer.Typer(
    help="A language model server whose facts can be corrected while it serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.add_typer(models, name="models")
register_admin(app)
register_edits(app)
register_eval(app)
register_store(app)
register_rebase(app)
app.command()(locate)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
    model: Model = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join((AUTO, *list_methods()))}: the method of edits that name none.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda …")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    allow_public_bind: Annotated[
        bool, typer.Option("--allow-public-bind", help="Listen on more than this machine, although there are no keys.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name or address by which clients reach the server; may be repeated.")
    ] = None,
) -> None:
    """Serve the model. Every other setting is an environment variable, ERRATA_*; the database is migrated first."""
    settings = read_settings(
        host=host,
        port=port,
        data_dir=data_dir,
        model=model,
        database_url=database_url,
        redis_url=redis_url,
        method=method,
        device=device,
        log_level=log_level,
        allow_public_bind=allow_public_bind or None,
        allowed_hosts=tuple(allowed_host) if allowed_host else None,
    )
    with report_errors(), bind_port(settings.host, settings.port) as sockets:
        log.info("starting", errata=__version__, model=settings.model)
        from service.runtime.server import (
            serve as run,  # here, because it loads torch, which takes ten seconds
        )

        run(settings, sockets, Supervisor.from_environment(os.environ, frozen_s=settings.frozen_s))


@app.command()
def migrate(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Migrate the database to the newest schema. Safe to repeat."""
    settings = read_settings(data_dir=data_dir, database_url=database_url)
    from service.store.migrate import upgrade

    with report_errors():
        upgrade(settings.store_url)
    typer.echo("The database is up to date.")


@app.command()
def doctor(data_dir: DataDir = None, database_url: DatabaseUrl = None, redis_url: RedisUrl = None, model: Model = None) -> None:
    """Print what is configured, reachable and missing; exit code 1 if the server could not start."""
    settings = read_settings(data_dir=data_dir, database_url=database_url, redis_url=redis_url, model=model)
    from service.cli.doctor import check_all, print_findings

    findings = check_all(settings)
    print_findings(findings)
    if any(finding.is_fatal for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def demo(
    model: Model = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder and print its path.")] = False,
) -> None:
    """Run the demo on a local server: ask, correct, retrain, roll back, kill -9, start again."""
    settings = read_settings(model=model)
    from service.cli.demo import run_demo

    with report_errors():
        holds = run_demo(settings.model, keep=keep)
    if not holds:
        raise typer.Exit(FAILED)


@app.command("settings")
def show_settings() -> None:
    """Print every setting with its default, as Markdown."""
    from service.cli.settings_table import markdown

    typer.echo(markdown(), nl=False)


@app.command()
def version() -> None:
    """Print the version of this program."""
    typer.echo(__version__)


if __name__ == "__main__":
    app(prog_name="errata")
