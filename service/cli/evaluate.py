"""`errata eval`: a version measured on a data set, the field's protocol on a local server, and the evaluation harness."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.cli.options import FAILED, DatabaseUrl, DataDir, Model, ServerUrl, parse_version, read_settings, report_errors
from service.client.progress import errors, show_progress
from service.domain.errors import Refused
from service.evaluation.datasets import LoadedDataset, load
from service.settings import Settings

MAX_BAD_ROWS = MAX_NOTES = 20
MOMENTS = {"result": "score", "after_edit": "after edit", "after_all": "after all", "after_retrain": "after retrain"}
KINDS = ("reliability", "generality", "locality", "portability")
output = Console(highlight=False, soft_wrap=True)


def evaluate(
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set: JSON, JSON lines or CSV; default: the live edits.")
    ] = None,
    schema: Annotated[str, typer.Option("--schema", help="Schema of the data set, or auto.")] = "auto",
    format: Annotated[
        str, typer.Option("--format", help="json or csv; auto: CSV for a name that ends with .csv or .tsv, else JSON.")
    ] = "auto",
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", help="Encoding of the data set, such as gbk; default: UTF-8, or as its byte order mark says."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Ask only the first n records (of a task: samples).")
    ] = None,
    version: Annotated[str, typer.Option("--version", help="A number, `head` or `base`.")] = "head",
    metrics: Annotated[str, typer.Option("--metrics", help="standard, or full: every metric of the field.")] = "standard",
    capability: Annotated[bool, typer.Option("--capability", help="Measure capability too.")] = False,
    capability_file: Annotated[
        Path | None, typer.Option("--capability-file", help="JSON lines of tasks; default: the server's own.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Edit first; ask after each edit and after all edits; without --server in a temporary store."
        ),
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1000, help="With --apply: edits posted together.")] = 1,
    retrain: Annotated[bool, typer.Option("--retrain", help="With --apply: retrain at the end, and ask once more.")] = False,
    harness: Annotated[str | None, typer.Option("--harness", help="Tasks of lm-evaluation-harness, separated by commas.")] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="Folder of your own harness tasks; code in it is run.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option("--num-fewshot", min=0, help="Examples before each question, with --harness.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the whole report here, as JSON.")] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Measure a version on a data set, or edit a model with the data set and print the field's table. --apply never edits the
    configured store: it edits a temporary store, or the server that --server names.
    """
    if data is None and (encoding is not None or format != "auto"):
        raise typer.BadParameter("is about the file of --data", param_hint="--encoding" if encoding is not None else "--format")
    _check_options(version, metrics, apply=apply, retrain=retrain, batch=batch, data=data, harness=harness, server=server)
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model, capability_file=capability_file)
    with report_errors():
        if capability_file is not None and server is not None:
            raise Refused("--capability-file is for a local server; the server of --server has a setting for it")
        if harness is not None:
            names = [name.strip() for name in harness.split(",") if name.strip()]
            report = _run_harness(settings, version, names, include_path=include_path, limit=limit, num_fewshot=num_fewshot)
            _write(out, report)
            output.print(_harness_table(report))
            return
        loaded = None if data is None else _load(data, schema, limit=limit, encoding=encoding, format=format)
        report = _measure(
            settings,
            server,
            data=data,
            loaded=loaded,
            version=version,
            metrics=metrics,
            capability=capability or capability_file is not None,
            apply=apply,
            batch=batch,
            retrain=retrain,
            out=out,
        )
        _write(out, report)
    for line in _summary(report):
        output.print(line, markup=False)
    output.print(_table(report))
    if "error" in report:
        errors.print(report["error"], style="red", markup=False)
        raise typer.Exit(FAILED)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    app.command("eval")(evaluate)


def _check_options(
    version: str,
    metrics: str,
    *,
    apply: bool,
    retrain: bool,
    batch: int,
    data: Path | None,
    harness: str | None,
    server: str | None,
) -> None:
    """Raise BadParameter, for exit code 2, if options contradict each other."""
    parse_version(version)
    if metrics not in ("standard", "full"):
        raise typer.BadParameter("must be standard or full", param_hint="--metrics")
    if apply and data is None:
        raise typer.BadParameter("needs --data, the edits to post", param_hint="--apply")
    if apply and version != "head":
        raise typer.BadParameter("asks the versions that it makes; leave --version out", param_hint="--apply")
    if not apply and (retrain or batch != 1):
        raise typer.BadParameter("belongs to --apply", param_hint="--retrain" if retrain else "--batch")
    if harness is not None and (data is not None or apply or server is not None):
        raise typer.BadParameter("asks a version in this process: no --data, --apply or --server", param_hint="--harness")


def _load(data: Path, schema: str, *, limit: int | None, encoding: str | None, format: str) -> LoadedDataset:
    """The data set. Bad rows, and what was left out of good ones, are told on stderr."""
    if not data.is_file():
        raise Refused("--data names no file", field="data")
    loaded = load(data, schema, limit=limit, encoding=encoding, format=format)
    for row in loaded.bad[:MAX_BAD_ROWS]:
        errors.print(f"row {row.line}: {row.reason}", style="yellow", markup=False)
    if len(loaded.bad) > MAX_BAD_ROWS:
        errors.print(f"… and {len(loaded.bad) - MAX_BAD_ROWS} more bad rows; --out has all of them", style="yellow")
    notes = sorted(loaded.notes.items(), key=lambda note: -note[1])
    for note, times in notes[:MAX_NOTES]:
        errors.print(f"{note} ({times:,})", style="dim", markup=False)
    if len(notes) > MAX_NOTES:
        errors.print(f"… and {len(notes) - MAX_NOTES} more notes; --out has all of them", style="dim")
    return loaded


def _measure(
    settings: Settings,
    server: str | None,
    *,
    data: Path | None,
    loaded: LoadedDataset | None,
    version: str,
    metrics: str,
    capability: bool,
    apply: bool,
    batch: int,
    retrain: bool,
    out: Path | None,
) -> dict[str, Any]:
    """The report of a data set, or of the live edits."""
    from service.client.evaluation_protocol import edit_and_measure
    from service.client.evaluations import EvaluationClient  # here, because it loads torch
    from service.client.local_server import open_client

    records = () if loaded is None else loaded.records
    report: dict[str, Any] = {"metrics": metrics, "version": version}
    if loaded is not None and data is not None:
        report["data"] = {
            "file": data.name,
            "schema": loaded.schema,
            "records": len(records),
            "bad": [{"line": row.line, "reason": row.reason} for row in loaded.bad],
            "notes": dict(loaded.notes),
        }
    with _temporary_store(settings, apply and server is None) as used_settings, show_progress("starting") as progress:
        with open_client(server, used_settings, progress) as client:
            evaluator = EvaluationClient(client, "full" if metrics == "full" else "standard", progress=progress)
            if apply:

                def save(moments: Mapping[str, Any]) -> None:
                    last = moments.get("after_all", moments["after_edit"])
                    report.update({"version": last.get("version"), **moments, "refused": dict(evaluator.refused)})
                    _write(out, report)

                edit_and_measure(evaluator, records, batch=batch, capability=capability, retrain=retrain, save=save)
            else:
                report["result"] = evaluator.measure(parse_version(version), records or "live", capability=capability)
                report["version"] = report["result"]["version"]
    for record, reason in evaluator.refused.items():
        errors.print(f"record {record}: {reason}", style="yellow", markup=False)
    return report | {"refused": dict(evaluator.refused)}


@contextmanager
def _temporary_store(settings: Settings, is_needed: bool) -> Iterator[Settings]:
    """The settings, or the same settings with a new data folder, which is removed at the end."""
    if not is_needed:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="errata-eval-") as folder:
        yield settings.model_copy(update={"data_dir": Path(folder), "database_url": None, "redis_url": None})


def _run_harness(
    settings: Settings, version: str, tasks: list[str], *, include_path: Path | None, limit: int | None, num_fewshot: int | None
) -> dict[str, Any]:
    """The harness' report on a version of the configured store. The store is only read, also beside a running server."""
    try:
        from service.evaluation.capability.harness import run_harness
    except ImportError:
        raise Refused("lm-evaluation-harness is not installed: pip install 'errata-server[eval]'") from None
    from service.runtime.open_version import open_version

    os.nice(10)  # a running server has priority over this process
    with open_version(settings, version) as (number, view, adapter):
        results = run_harness(view, adapter, tasks, include_path=include_path, limit=limit, num_fewshot=num_fewshot)
    return {"version": number, **results}


def _write(out: Path | None, report: Mapping[str, Any]) -> None:
    if out is None:
        return
    try:
        out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError:
        raise Refused("the report cannot be written to --out", field="out") from None


def _summary(report: Mapping[str, Any]) -> Iterator[str]:
    if "data" in report:
        data = report["data"]
        refused = f", {len(report['refused'])} that this model cannot be asked" if report["refused"] else ""
        yield f"{data['file']} ({data['schema']}): {data['records']} records, {len(data['bad'])} bad rows{refused}"
    if "edits" in report:
        yield "edits: " + ", ".join(f"{count} {status}" for status, count in sorted(report["edits"].items()))
    yield f"version {report['version']}"
    for name, moment in MOMENTS.items():
        if report.get(name, {}).get("not_live"):
            yield f"{moment}: {report[name]['not_live']} edits were not live" + (
                ", and not asked" if name == "after_edit" else ""
            )
    if forced := report.get("result", {}).get("accepted_anyway"):
        yield f"live edits that were accepted anyway, and not asked: {forced}"
    if "deferred" in report:
        yield f"deferred edits did not become live: {report['deferred']['error']}"


def _table(report: Mapping[str, Any]) -> Table:
    """One line a figure: the base model beside every moment that was measured."""
    moments = [name for name in MOMENTS if name in report]
    last = report[moments[-1]]
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    for name in ("n", "base", *(MOMENTS[moment] for moment in moments)):
        table.add_column(name, justify="right")
    for path in _paths(last):
        figures = [_figure_at(report[moment], path) for moment in moments]
        n = figures[-1]["n"]
        if n:
            table.add_row(
                _name_of(path), str(n), _format(_base_of(last, path)), *(_format(figure.get("score")) for figure in figures)
            )
    for moment in moments:
        capability = report[moment].get("capability")
        if capability is not None:
            cells = [_format(capability["version"]) if name == moment else "" for name in moments]
            ratio = "" if capability["ratio"] is None else f" ({capability['ratio']:.3f} of the base)"
            table.add_row(f"capability{ratio}", str(capability["n"]), _format(capability["base"]), *cells)
    return table


def _paths(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The paths of the figures of a result, without groups, which only the report has."""
    standard = [(judged, kind) for judged in ("greedy", "tokens") for kind in KINDS]
    return standard + [("full", *path) for path in _figures(result.get("full", {})) if "groups" not in path]


def _figures(tree: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            if "score" in value and "n" in value:
                yield (name,)
            else:
                yield from ((name, *rest) for rest in _figures(value))


def _figure_at(result: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node: Any = result
    for name in path:
        node = node.get(name, {}) if isinstance(node, dict) else {}
    return node if "n" in node else {"score": None, "n": 0}


def _base_of(result: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """The base model's score, or the noise floor of a figure that is measured against the base."""
    if path[0] != "full":
        return _figure_at(result["base"], path).get("score")
    figure = _figure_at(result, path)
    return next((figure[name] for name in ("base", "noise") if figure.get(name) is not None), None)


def _name_of(path: tuple[str, ...]) -> str:
    return f"{path[1]} ({path[0]})" if path[0] != "full" else " ".join(path[1:]).replace("_", " ")


def _format(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _harness_table(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "metric", "n", "score", "±"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for task, scores in report["results"].items():
        n = report.get("n-samples", {}).get(task, {}).get("effective", "")
        for name, score in scores.items():
            metric = name.partition(",")[0]
            if isinstance(score, float) and not metric.endswith("_stderr"):
                spread = scores.get(name.replace(metric, f"{metric}_stderr"))
                table.add_row(task, metric, str(n), f"{score:.3f}", f"{spread:.3f}" if isinstance(spread, float) else "")
    return table
