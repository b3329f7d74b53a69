"""`errata bench` on a ground: making one, single edits, a retrain of many, and Errata beside other ways to make edits known."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.bench.comparison.contenders import COMPARED
from service.bench.contenders import CONTENDERS
from service.bench.ground.cases import CASES
from service.domain.errors import Refused, ServiceError

FAILED, USAGE = 1, 2
SURFACES: tuple[Literal["cloze", "qa", "chat"], ...] = ("cloze", "qa", "chat")
HALVES = ("development", "test")
RETRAINED = ("locft_alone", "lora_alone")

Out = Annotated[Path, typer.Option(help="Folder of the JSON, CSV and SVG files.")]
Model = Annotated[str, typer.Option(help="`atlas` or another model, as `errata serve --model` takes it.")]
GroundFile = Annotated[Path, typer.Option("--ground", help="File of the model's ground, from `errata bench ground`.")]
GroundSurface = Annotated[str, typer.Option(help=f"Surface of a ground: {', '.join(SURFACES)}.")]
Half = Annotated[str, typer.Option(help="Half of a ground: development, where defaults are chosen, or test.")]
Case = Annotated[str, typer.Option(help=f"Which edits of a ground: one of {', '.join(CASES)}.")]
DType = Annotated[str, typer.Option(help="As the setting dtype.")]


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
        refuse(f"--surface must be one of {', '.join(SURFACES)}")
    from service.bench.ground.commands import make_ground  # here, because it loads torch

    try:
        make_ground(model, file, data=data, most=most, edits=edits, surfaces=surfaces, dtype=dtype, out=out, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


def single(
    file: GroundFile,
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
        refuse(f"--contender must be one of {', '.join(CONTENDERS)}")
    run_on_ground("single", model, file, out, surface=surface, half=half, n=n, every=n, dtype=dtype, contender=contender)


def retrain(
    file: GroundFile,
    out: Out,
    model: Model = "atlas",
    surface: GroundSurface = "qa",
    half: Half = "development",
    n: Annotated[int, typer.Option("--n", min=1, help="Number of edits.")] = 50,
    contender: Annotated[str, typer.Option(help=f"One of {', '.join(RETRAINED)}.")] = RETRAINED[0],
    dtype: DType = "auto",
) -> None:
    """Take the edits of a ground into the weights by one major retrain, and ask all probes of the weights alone."""
    if contender not in RETRAINED:
        refuse(f"--contender must be one of {', '.join(RETRAINED)}")
    run_on_ground("retrain", model, file, out, surface=surface, half=half, n=n, every=n, dtype=dtype, contender=contender)


def compare(
    file: GroundFile,
    out: Out,
    model: Model = "atlas",
    surface: GroundSurface = "qa",
    half: Half = "development",
    marks: Annotated[str, typer.Option(help="Numbers of edits after which to measure, such as 10,100.")] = "10,100",
    contender: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(COMPARED)}; may be repeated. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the questions of a mark.")] = 0,
    dtype: DType = "auto",
) -> None:
    """Set Errata beside the base model, edits in the prompt, retrieval, a LoRA refit and each method alone."""
    names = contender or list(COMPARED)
    if any(name not in COMPARED for name in names):
        refuse(f"--contender must be one of {', '.join(COMPARED)}")
    checked = _check(surface, half, "all")
    numbers = parse_numbers("--marks", marks, least=1)
    from service.bench.comparison.runs import run_comparison  # here, because it loads torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    try:
        run_comparison(model, file, out, names, surface=checked, half=half, marks=numbers, seed=seed, dtype=dtype, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


def run_on_ground(
    kind: Literal["single", "stream", "retrain"],
    model: str,
    file: Path,
    out: Path,
    *,
    surface: str,
    half: str,
    n: int,
    every: int,
    dtype: str,
    contender: str,
    case: str = "all",
) -> None:
    """Run one contender on the edits of a ground, and end with a sentence where that is refused."""
    checked = _check(surface, half, case)
    from service.bench.ground.commands import run_ground  # here, because it loads torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the local server is stopped too
    environment = {} if dtype == "auto" else {"ERRATA_DTYPE": dtype}
    try:
        run_ground(
            kind,
            model,
            file,
            out,
            surface=checked,
            half=half,
            n=n,
            every=every,
            contender=contender,
            case=case,
            environment=environment,
            say=typer.echo,
        )
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)


def parse_numbers(option: str, text: str, *, least: int) -> Sequence[int]:
    """Whole numbers between commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) >= least for part in parts):
        refuse(f"{option} must be whole numbers of at least {least} between commas")
    return [int(part) for part in parts]


def refuse(message: str, code: int = USAGE) -> None:
    """End the command with a sentence."""
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)


def _check(surface: str, half: str, case: str) -> Literal["cloze", "qa", "chat"]:
    """The surface, as one of those that there are."""
    for option, value, possible in (("surface", surface, SURFACES), ("half", half, HALVES), ("case", case, CASES)):
        if value not in possible:
            refuse(f"--{option} must be one of {', '.join(possible)}")
    return next(name for name in SURFACES if name == surface)
