"""`errata bench`: streams of edits through a server, and the papers' comparisons of trainings in this process."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.bench.contenders import CONTENDERS, LABELS
from service.bench.continual.contenders import CONTENDERS as CONTINUAL
from service.bench.continual.contenders import PRESETS as CONTINUAL_PRESETS
from service.domain.errors import Refused, ServiceError

app = typer.Typer(help="Measure: a stream of edits through a real server, or the papers' contrasts.", no_args_is_help=True)
FAILED, USAGE = 1, 2
SURFACES: tuple[Literal["cloze", "qa", "chat"], ...] = ("cloze", "qa", "chat")
HALVES = ("development", "test")
CONTRASTS = ("pipelines", "shards", "batches", "locations", "numbers", "methods")

Edits = Annotated[Path | None, typer.Option(help="Data set of edits, of any known schema; default: the benchmark of atlas.")]
Out = Annotated[Path, typer.Option(help="Folder of the JSON, CSV and SVG files.")]
Model = Annotated[str, typer.Option(help="`atlas` or another model, as `errata serve --model` takes it.")]
GroundSurface = Annotated[str, typer.Option(help=f"Surface of a ground: {', '.join(SURFACES)}.")]
Half = Annotated[str, typer.Option(help="Half of a ground: development, where defaults are chosen, or test.")]
DType = Annotated[str, typer.Option(help="As the setting dtype.")]
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
    dtype: DType = "auto",
) -> None:
    """Replay a stream of edits through a local server, for each contender, and measure it at intervals."""
    names = contender or ["default"]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        _refuse(f"--contender must be one of {', '.join(CONTENDERS)}")
    if ground_file is not None:
        for name in names:
            _run_ground(model, ground_file, out, surface=surface, half=half, n=n, every=every, dtype=dtype, contender=name)
        return
    from service.bench.stream_comparison import run_streams

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    try:
        short = run_streams(out, edits, names, n=n, every=every, pace_s=pace, skip=skip, model=model, tasks=tasks, say=typer.echo)
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)
    for sentence in short:
        typer.echo(f"{LABELS['default']}: short of its aim: {sentence}")


@app.command()
def ground(
    file: Annotated[Path, typer.Option("--ground", help="File for the ground.")],
    model: Model = "atlas",
    data: Annotated[
        Path | None, typer.Option(help="Folder of public data (edit/, capability/): facts about people, and text by people.")
    ] = None,
    most: Annotated[int, typer.Option(min=16, help="Facts of each relation that are asked at most.")] = 80,
    edits: Annotated[int, typer.Option(min=1, help="Edits of each surface and half at most.")] = 50,
    surface: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(SURFACES)}; may be repeated. Default: all that the model has.")
    ] = None,
    dtype: DType = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the table of known facts, as a result file.")] = None,
) -> None:
    """Ask a model what it knows, and make edits of it with probes that no trick passes: its question ground."""
    surfaces = tuple(name for name in SURFACES if name in (surface or SURFACES))
    if surface is not None and set(surface) - set(SURFACES):
        _refuse(f"--surface must be one of {', '.join(SURFACES)}")
    from service.bench.ground.commands import make_ground  # here, because it loads torch

    try:
        make_ground(model, file, data=data, most=most, edits=edits, surfaces=surfaces, dtype=dtype, out=out, say=typer.echo)
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


@app.command()
def single(
    file: Annotated[Path, typer.Option("--ground", help="File of the model's ground, from `errata bench ground`.")],
    out: Out,
    model: Model = "atlas",
    surface: GroundSurface = "qa",
    half: Half = "development",
    n: Annotated[int, typer.Option("--n", min=1, help="Number of edits.")] = 50,
    contender: Annotated[str, typer.Option(help=f"One of {', '.join(CONTENDERS)}.")] = "default",
    dtype: DType = "auto",
) -> None:
    """Post the edits of a ground to a local server, each alone on the base model, and ask its probes."""
    if contender not in CONTENDERS:
        _refuse(f"--contender must be one of {', '.join(CONTENDERS)}")
    _run_ground(model, file, out, surface=surface, half=half, n=n, every=None, dtype=dtype, contender=contender)


def _run_ground(
    model: str, file: Path, out: Path, *, surface: str, half: str, n: int, every: int | None, dtype: str, contender: str
) -> None:
    if surface not in SURFACES:
        _refuse(f"--surface must be one of {', '.join(SURFACES)}")
    if half not in HALVES:
        _refuse(f"--half must be one of {', '.join(HALVES)}")
    from service.bench.ground.commands import run_ground  # here, because it loads torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    environment = {} if dtype == "auto" else {"ERRATA_DTYPE": dtype}
    try:
        run_ground(
            model,
            file,
            out,
            surface=surface,
            half=half,
            n=n,
            every=every,
            contender=contender,
            environment=environment,
            say=typer.echo,
        )
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


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
        _refuse(f"--contender must be one of {', '.join(CONTINUAL)}")
    numbers = {"marks": _parse_numbers("--marks", marks, least=1), "seeds": _parse_numbers("--seeds", seeds, least=0)}
    from service.bench.continual.runs import run_continual  # here, because it loads torch

    try:
        run_continual(out, edits, names, model=model, batch=batch, **numbers, say=typer.echo)
    except ServiceError as error:
        _refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


def _parse_numbers(option: str, text: str, *, least: int) -> Sequence[int]:
    """Whole numbers between commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) >= least for part in parts):
        _refuse(f"{option} must be whole numbers of at least {least} between commas")
    return [int(part) for part in parts]


def _refuse(message: str, code: int = USAGE) -> None:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)
