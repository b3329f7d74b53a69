"""`errata bench`: streams of edits through a server, and the papers' comparisons of trainings in this process."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.bench.contenders import CONTENDERS, LABELS
from service.bench.continual.contenders import CONTENDERS as CONTINUAL
from service.bench.continual.contenders import PRESETS as CONTINUAL_PRESETS
from service.cli.bench_ground import (
    FAILED,
    USAGE,
    Case,
    DType,
    GroundSurface,
    Half,
    Model,
    Out,
    compare,
    ground,
    parse_numbers,
    refuse,
    retrain,
    run_on_ground,
    single,
)
from service.domain.errors import Refused, ServiceError

app = typer.Typer(help="Measure: a stream of edits through a real server, or the papers' contrasts.", no_args_is_help=True)
CONTRASTS = ("pipelines", "shards", "batches", "locations", "numbers", "methods")

Edits = Annotated[Path | None, typer.Option(help="Data set of edits, of any known schema; default: the benchmark of atlas.")]
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
    ground_file: Annotated[
        Path | None,
        typer.Option("--ground", help="File of the model's ground: its edits and its probes replace those of a data set."),
    ] = None,
    surface: GroundSurface = "qa",
    half: Half = "development",
    case: Case = "all",
    dtype: DType = "auto",
) -> None:
    """Replay a stream of edits through a local server, for each contender, and measure it at intervals."""
    names = contender or ["default"]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        refuse(f"--contender must be one of {', '.join(CONTENDERS)}")
    if ground_file is not None:
        for name in names:
            run_on_ground(
                "stream",
                model,
                ground_file,
                out,
                surface=surface,
                half=half,
                n=n,
                every=every,
                dtype=dtype,
                contender=name,
                case=case,
            )
        return
    from service.bench.stream_comparison import run_streams

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    try:
        short = run_streams(out, edits, names, n=n, every=every, pace_s=pace, skip=skip, model=model, tasks=tasks, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)
    for sentence in short:
        typer.echo(f"{LABELS['default']}: short of its aim: {sentence}")


for command in (ground, single, retrain, compare):
    app.command()(command)


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
        refuse(f"--part must be one of {', '.join(CONTRASTS)}")
    from service.bench.contrast_runs import run_contrasts  # here, because it loads torch

    try:
        run_contrasts(out, edits, parts, n=n, skip=skip, model=model, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


@app.command()
def continual(
    out: Out,
    edits: Edits = None,
    model: Model = "atlas",
    contender: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CONTINUAL)}; may be repeated.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Edits of one fit.")] = 1,
    marks: Annotated[str, typer.Option(help="Numbers of fits after which to measure, such as 1,10,100.")] = "1,10,100",
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2. Each draws its own edits, in its own order.")] = "0",
) -> None:
    """Fit one batch of edits after another, each on top of the last, in this process, and keep whatever comes of it."""
    names = contender or list(CONTINUAL_PRESETS)
    if any(name not in CONTINUAL for name in names):
        refuse(f"--contender must be one of {', '.join(CONTINUAL)}")
    numbers = {"marks": parse_numbers("--marks", marks, least=1), "seeds": parse_numbers("--seeds", seeds, least=0)}
    from service.bench.continual.runs import run_continual  # here, because it loads torch

    try:
        run_continual(out, edits, names, model=model, batch=batch, **numbers, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)
