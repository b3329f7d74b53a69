"""`errata bench`: streams of edits through a server, and the papers' comparisons of trainings in this process."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.bench.contenders import CONTENDERS, LABELS
from service.domain.errors import Refused, ServiceError

app = typer.Typer(help="Measure: a stream of edits through a real server, or the papers' contrasts.", no_args_is_help=True)
FAILED, USAGE = 1, 2
CONTRASTS = ("pipelines", "shards", "batches", "locations", "numbers", "methods")

Edits = Annotated[Path | None, typer.Option(help="Data set of edits, of any known schema; default: the benchmark of atlas.")]
Out = Annotated[Path, typer.Option(help="Folder of the JSON, CSV and SVG files.")]
Model = Annotated[str, typer.Option(help="`atlas` or another model, as `errata serve --model` takes it.")]
Skip = Annotated[int, typer.Option(min=0, help="Number of edits at the beginning of the file to leave out.")]


@app.command()
def stream(
    out: Out,
    edits: Edits = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of edits.")] = 300,
    every: Annotated[int, typer.Option(min=1, help="Edits between two measurements.")] = 25,
    pace: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="Seconds from one edit to the next; 0: without a pause.")
    ] = 0.0,
    contender: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CONTENDERS)}; may be repeated.")] = None,
    skip: Skip = 0,
    model: Model = "atlas",
    tasks: Annotated[Path | None, typer.Option(help="File of capability tasks; default: the tasks of atlas, else none.")] = None,
) -> None:
    """Replay a stream of edits through a local server, for each contender, and measure it at intervals."""
    names = contender or ["default"]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        _refuse(f"--contender must be one of {', '.join(CONTENDERS)}")
    from service.bench.stream_comparison import run_streams

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    try:
        short = run_streams(out, edits, names, n=n, every=every, pace_s=pace, skip=skip, model=model, tasks=tasks, say=typer.echo)
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)
    for sentence in short:
        typer.echo(f"{LABELS['default']}: short of its aim: {sentence}")


@app.command()
def contrast(
    out: Out,
    edits: Edits = None,
    n: Annotated[
        int, typer.Option("--n", min=5, help="Edits of each training; the part `numbers` has up to four times as many.")
    ] = 100,
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CONTRASTS)}; may be repeated.")] = None,
    skip: Skip = 0,
    model: Model = "atlas",
) -> None:
    """Train one model in the ways that the LocFT-BF paper compares, and by each consolidating method, in this process."""
    parts = part or list(CONTRASTS)
    if any(name not in CONTRASTS for name in parts):
        _refuse(f"--part must be one of {', '.join(CONTRASTS)}")
    from service.bench.contrast_runs import run_contrasts  # here, because it loads torch

    try:
        run_contrasts(out, edits, parts, n=n, skip=skip, model=model, say=typer.echo)
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


def _refuse(message: str, code: int = USAGE) -> None:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)
