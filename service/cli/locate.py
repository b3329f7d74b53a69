"""`errata locate`: where a model takes edits best, by measurement."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from service.cli.bench_ground import Model, parse_numbers, refuse
from service.cli.options import FAILED, USAGE, read_settings
from service.domain.errors import Refused, ServiceError
from service.editors.locft.published_locations import BlockKind
from service.editors.locft.settings import LocftSettings

KINDS: tuple[BlockKind, ...] = get_args(BlockKind)


def locate(
    out: Annotated[Path, typer.Option(help="Folder of the JSON file; a sweep that it holds in part goes on.")] = Path("locate"),
    model: Model = "atlas",
    edits: Annotated[
        Path | None,
        typer.Option(help="Data set of edits with rephrases and locality, of any known schema; default: the benchmark of atlas."),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Number of edits of each retrain.")] = 20,
    skip: Annotated[int, typer.Option(min=0, help="Number of edits at the beginning of the file to leave out.")] = 0,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(KINDS)}; may be repeated. Default: down, mlp.")
    ] = None,
    block: Annotated[
        str | None, typer.Option(help="Blocks from 0, such as 10,15,20. Default: eight of them, evenly spread.")
    ] = None,
) -> None:
    """Retrain a few edits at each block and module of a model, and say where they are answered best and change least.

    Every other setting of the retrains is that of the environment, ERRATA_LOCFT__*.
    """
    names = kind or ["down", "mlp"]
    if any(name not in KINDS for name in names):
        refuse(f"--kind must be one of {', '.join(KINDS)}")
    blocks = parse_numbers("--block", block, least=0) if block is not None else []
    settings = read_settings(model=model).of_method(LocftSettings)
    from service.bench.locate import describe, to_environment  # here, because it loads torch
    from service.bench.locate import locate as sweep

    kinds = [known for known in KINDS if known in names]
    try:
        rows = sweep(out, edits, model=model, n=n, skip=skip, kinds=kinds, blocks=blocks, settings=settings, say=typer.echo)
    except ServiceError as error:
        refuse(error.message, USAGE if isinstance(error, Refused) else FAILED)
    typer.echo("\nthe best first:")
    for row in rows:
        typer.echo(f"  {describe(row)}")
    typer.echo("retrain there: " + " ".join(f"{name}={value}" for name, value in to_environment(rows[0]).items()))
