"""The part *documents*: the API's description, the settings, the help texts, the tables and the refusals of both revisions.

A changed line of structure is a difference, unless it is expected. A changed line of prose is counted and listed, and is no
difference.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.compare.differences import DocumentDifference, compare_texts
from benchmarks.compare.prose import Document, list_commands, split_help, split_json, split_settings
from benchmarks.compare.servers import RevisionServer, run_on_both
from benchmarks.compare.trees import Tree

MOST_DEEP = 3  # words of a command
# Requests that a new server refuses, and some that it answers, as (method, path, body).
REQUESTS: Sequence[tuple[str, str, Any]] = (
    ("GET", "/health/live", None),
    ("GET", "/health/ready", None),
    ("GET", "/nothing", None),
    ("GET", "/versions/99", None),
    ("GET", "/versions/middle", None),
    ("GET", "/edits/01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11", None),
    ("GET", "/jobs?limit=0", None),
    ("GET", "/generate", None),
    ("GET", "/generate?prompt=The+capital+of+Australia+is", None),
    ("GET", "/generate?prompt=The+capital+of+Australia+is&version=7", None),
    ("PUT", "/edits", {}),
    ("POST", "/edits", {}),
    ("POST", "/edits", {"prompt": "a", "target": 7, "unknown": True}),
    ("POST", "/edits/batch", {"edits": []}),
    ("POST", "/generate", {"prompt": ""}),
    ("POST", "/admin/retrain", {"reason": "comparison"}),
    ("POST", "/admin/rollback", {"to": 5, "reason": "comparison"}),
    ("POST", "/admin/export", {"version": 3, "name": "NO"}),
    ("POST", "/admin/purge", {"edits": ["no id"]}),
    ("DELETE", "/jobs/01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11", None),
)


def compare_documents(trees: tuple[Tree, Tree], room: Path, expected: Sequence[str]) -> dict[str, Any]:
    """Compare every document of both revisions by line. Prints the diffs."""
    responses = run_on_both(trees, room, _read_served)
    before, after = (documents | dict(_read_printed(tree, room)) for tree, documents in zip(trees, responses, strict=True))
    structure, prose = [], []
    for name in dict.fromkeys([*before, *after]):
        first, second = (documents.get(name, Document("")) for documents in (before, after))
        structure.append(compare_texts(name, first.structure, second.structure, expected))
        prose.append(compare_texts(f"{name}, prose", first.prose, second.prose))
    _print_diffs([*structure, *prose])
    return {
        "documents": len(structure),
        "lines": sum(len(text.splitlines()) for document in before.values() for text in (document.structure, document.prose)),
        "expected_texts": list(expected),
        "expected": sum(len(difference.changed) - len(difference.unexpected) for difference in structure),
        "prose": [f"{difference.name}: {line}" for difference in prose for line in difference.changed],
        "differences": [f"{difference.name}: {line}" for difference in structure for line in difference.unexpected],
    }


def sort_lines(sql: str) -> str:
    """A statement with its first line in place and the others sorted, without the commas between them."""
    first, *rest = (line.strip().removesuffix(",") for line in sql.splitlines())
    return "\n".join([first, *sorted(rest)])


def _read_served(_server: RevisionServer, client: httpx.Client) -> dict[str, Document]:
    """The documents that a new server sends over HTTP."""
    answers = [_send(client, *request) for request in REQUESTS]
    return {
        "openapi.json": split_json(client.get("/openapi.json").raise_for_status().json()),
        "page": Document(client.get("/").text),
        "answers and refusals": Document(
            "\n".join(answer.structure for answer in answers), "\n".join(answer.prose for answer in answers if answer.prose)
        ),
    }


def _send(client: httpx.Client, method: str, path: str, body: Any) -> Document:
    answer = client.request(method, path, json=body)
    request = f"{method} {path} {json.dumps(body)}"
    is_json = "json" in answer.headers.get("content-type", "")
    content = split_json(answer.json()) if is_json else Document(answer.text)
    prose = f"{request}\n{content.prose}" if content.prose else ""
    return Document(f"{request}\n{answer.status_code} {', '.join(sorted(answer.headers))}\n{content.structure}", prose)


def _read_printed(tree: Tree, room: Path) -> Iterator[tuple[str, Document]]:
    """The output of the commands, and the database that they create."""
    yield "errata settings", split_settings(tree.errata("settings").stdout)
    yield "errata version", Document(tree.errata("version").stdout)
    yield "schema", Document(_read_schema(tree, room / f"migrated-{tree.side}"))
    yield from _read_helps(tree, ())


def _read_helps(tree: Tree, words: tuple[str, ...]) -> Iterator[tuple[str, Document]]:
    """The help of a command, and of all commands below it."""
    text = tree.errata(*words, "--help").stdout
    yield " ".join(["errata", *words, "--help"]), split_help(text)
    if len(words) < MOST_DEEP:
        for word in list_commands(text):
            yield from _read_helps(tree, (*words, word))


def _read_schema(tree: Tree, data: Path) -> str:
    """The tables of a new database, by name, and the migration that it is at.

    The lines of a statement are sorted: a migration that copies a table writes its constraints in a random order.
    """
    process = tree.errata("migrate", DATA_DIR=str(data))
    if process.returncode:
        return f"errata migrate ended with {process.returncode}\n{process.stderr}"
    with closing(sqlite3.connect(data / "errata.db")) as database:
        statements = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name").fetchall()
        revision = database.execute("SELECT version_num FROM alembic_version").fetchall()
    return "\n\n".join([f"revision {revision}", *(sort_lines(sql) for (sql,) in statements)])


def _print_diffs(differences: Sequence[DocumentDifference]) -> None:
    for difference in differences:
        if difference.diff:
            print("\n".join(difference.diff), flush=True)
