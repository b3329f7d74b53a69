"""The commands for edits, over HTTP: `errata edit` posts one, `errata edits` reads one or lists the last ones."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, get_args

import typer
from rich.console import Console

from service.cli.options import (
    FAILED,
    DatabaseUrl,
    DataDir,
    Model,
    ServerUrl,
    open_client_with_progress,
    read_settings,
    report_errors,
)
from service.client.shapes import AcceptText, DeferralData, EditData, EditInput, EditStatusText, ListedEditData, ScopeText
from service.client.waiting import LIVE
from service.domain.edit import ANYWAY, BY_PROMPT, JUDGED
from service.domain.errors import Refused

WAIT_S = 60.0  # the server's limit
output = Console(highlight=False, soft_wrap=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def edit(
    prompt: Annotated[str, typer.Argument(help="The prompt to correct.")],
    target: Annotated[str, typer.Argument(help="Its new answer.")],
    subject: Annotated[str | None, typer.Option("--subject", help="Subject of the fact.")] = None,
    relation: Annotated[str | None, typer.Option("--relation", help="Property of the subject.")] = None,
    rephrase: Annotated[list[str] | None, typer.Option("--rephrase", help="Another wording; may be repeated.")] = None,
    accept: Annotated[
        str, typer.Option("--accept", help="judged, or anyway: publish it also if it costs the rest of the model too much.")
    ] = JUDGED,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="On which prompts it acts: auto, subject (those that name the subject or an alias), or always (every prompt).",
        ),
    ] = BY_PROMPT,
    alias: Annotated[list[str] | None, typer.Option("--alias", help="Another name of the subject; may be repeated.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Post an edit, wait until it is settled and print what became of it; exit code 1 if it is not live."""
    chosen, acting = _parse_accept(accept), _parse_scope(scope)
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model)
    body: EditInput = {"prompt": prompt, "target": target, "subject": subject, "relation": relation, "accept": chosen}
    with report_errors(), open_client_with_progress(server, settings) as client:
        more: EditInput = {**body, "rephrases": list(rephrase or ()), "scope": acting, "aliases": list(alias or ())}
        posted = client.post_edit(more, wait_s=WAIT_S)
        settled = client.wait_for_edit(posted["id"])
    _print(settled, as_json)
    if settled["status"] not in LIVE:
        raise typer.Exit(FAILED)


def edits(
    edit_id: Annotated[str | None, typer.Argument(help="Id of an edit; default: the last ones.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only edits with this status, such as deferred.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Number of edits.")] = 20,
    as_json: AsJson = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    model: Model = None,
) -> None:
    """Print an edit, or list the last ones: where each stands, why a deferred one waits, and when it is tried next."""
    known = next((word for word in get_args(EditStatusText) if word == status), None)
    if status is not None and known is None:
        raise typer.BadParameter(f"must be one of {', '.join(get_args(EditStatusText))}", param_hint="--status")
    settings = read_settings(data_dir=data_dir, database_url=database_url, model=model)
    with report_errors(), open_client_with_progress(server, settings) as client:
        if edit_id is not None:
            _print(client.get_edit(_check_id(edit_id)), as_json)
            return
        listed = list(islice(client.list_edits(status=known, limit=limit), limit))
    if as_json:
        typer.echo(json.dumps(listed, indent=1))
    else:
        for found in listed:
            for line in _lines(found):
                output.print(line, markup=False)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(edit)
    app.command()(edits)


def _parse_accept(text: str) -> AcceptText:
    match text:
        case "judged" | "anyway":
            return text
    raise typer.BadParameter(f"must be {JUDGED} or {ANYWAY}", param_hint="--accept")


def _parse_scope(text: str) -> ScopeText:
    match text:
        case "auto" | "subject" | "always":
            return text
    raise typer.BadParameter("must be auto, subject or always", param_hint="--scope")


def _check_id(edit_id: str) -> str:
    if not edit_id.replace("-", "").isalnum():
        raise Refused("the argument must be an edit's id", field="id")
    return edit_id


def _print(found: EditData, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    lines: dict[str, Any] = {
        "edit": found["id"],
        "is": describe_status(found),
        "prompt": found["prompt"],
        "target": found["target"],
        "scope": _describe_scope(found),
        "version": "none" if found["version"] is None else found["version"],
        **describe_deferral(found["deferral"]),
    }
    if found["deferral"] is None and found["error"] is not None:
        lines["because"] = found["error"]
    for name, value in lines.items():
        output.print(f"{name}: {value}", markup=False)


def describe_status(found: EditData | ListedEditData) -> str:
    """The status of an edit, and whether a refusal was overruled for it."""
    is_forced = found["accepted_anyway"] and found["status"] in LIVE
    return f"{found['status']}, accepted anyway" if is_forced else found["status"]


def _describe_scope(found: EditData) -> str:
    """The scope of an edit, with the names by which it is recognised."""
    names = [name for name in (found["subject"], *found["aliases"]) if name is not None]
    return f"{found['scope']} ({', '.join(names)})" if names else found["scope"]


def describe_deferral(deferral: DeferralData | None) -> dict[str, str]:
    """What a deferral says, line by line."""
    if deferral is None:
        return {}
    tries = "unknown" if deferral["tries"] is None else str(deferral["tries"])
    on = "" if deferral["tried_on_version"] is None else f", last on version {deferral['tried_on_version']}"
    figures = (f"{name} {_describe_figure(figure)}" for name, figure in deferral["figures"].items())
    return {
        "because": deferral["reason"] or "unknown",
        "figures": ", ".join(figures) or "none",
        "tries": tries + on,
        "next": deferral["next_try"]["sentence"],
    }


def _describe_figure(figure: dict[str, Any]) -> str:
    return f"{_round(figure.get('value'))} (limit {_round(figure.get('limit'))})"


def _round(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "unknown" if value is None else str(value)


def _lines(found: ListedEditData) -> Iterator[str]:
    """An edit of a list: one line, and one line more for its deferral or its error."""
    yield f"{found['id']} {describe_status(found)}: {found['prompt']} → {found['target']}"
    deferral = found["deferral"]
    if deferral is not None:
        yield f"    because {deferral['reason'] or 'unknown'}; next: {deferral['next_try']['sentence']}"
    elif found["error"] is not None:
        yield f"    because {found['error']}"
