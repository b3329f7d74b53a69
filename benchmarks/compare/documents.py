"""The part *documents*: what a revision says of itself, in its API's description, its commands, its tables and its refusals."""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.compare.differences import DocumentDifference, compare_texts
from benchmarks.compare.servers import RevisionServer, run_on_both
from benchmarks.compare.trees import Tree

MOST_DEEP = 3  # words of a command
# A command's row in a help text: its name at the left edge of the panel. The rest of a long summary is further right.
COMMAND = re.compile(r"^│ ([a-z][a-z0-9-]*) ", re.MULTILINE)
PANEL = re.compile(r"╭─ Commands ─.*?╰", re.DOTALL)
# Requests that a new server refuses, and some that it answers: method, path, body.
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
    """Every document of both revisions by line. Prints the diffs."""
    served = run_on_both(trees, room, _served)
    before, after = (documents | dict(_printed(tree, room)) for tree, documents in zip(trees, served, strict=True))
    found = [
        compare_texts(name, before.get(name, ""), after.get(name, ""), expected) for name in dict.fromkeys([*before, *after])
    ]
    _show(found)
    return {
        "documents": len(found),
        "lines": sum(len(text.splitlines()) for text in before.values()),
        "expected_texts": list(expected),
        "expected": sum(len(one.changed) - len(one.unexpected) for one in found),
        "differences": [f"{one.name}: {line}" for one in found for line in one.unexpected],
    }


def list_commands(text: str) -> list[str]:
    """The commands that a help text lists."""
    panel = PANEL.search(text)
    return COMMAND.findall(panel.group()) if panel else []


def sort_lines(sql: str) -> str:
    """A statement with its first line in place and the others sorted, without the commas between them."""
    first, *rest = (line.strip().removesuffix(",") for line in sql.splitlines())
    return "\n".join([first, *sorted(rest)])


def _served(_server: RevisionServer, client: httpx.Client) -> dict[str, str]:
    """What a new server says over HTTP."""
    described = client.get("/openapi.json").raise_for_status().json()
    return {
        "openapi.json": json.dumps(described, indent=1, sort_keys=True),
        "page": client.get("/").text,
        "answers and refusals": "\n".join(_answered(client, *request) for request in REQUESTS),
    }


def _answered(client: httpx.Client, method: str, path: str, body: Any) -> str:
    answer = client.request(method, path, json=body)
    return f"{method} {path} {json.dumps(body)}\n{answer.status_code} {', '.join(sorted(answer.headers))}\n{answer.text}"


def _printed(tree: Tree, room: Path) -> Iterator[tuple[str, str]]:
    """What the commands print, and the database that they make."""
    yield "errata settings", tree.errata("settings").stdout
    yield "errata version", tree.errata("version").stdout
    yield "schema", _schema(tree, room / f"migrated-{tree.side}")
    yield from _helps(tree, ())


def _helps(tree: Tree, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The help of a command, and of all commands below it."""
    text = tree.errata(*words, "--help").stdout
    yield " ".join(["errata", *words, "--help"]), text
    if len(words) < MOST_DEEP:
        for word in list_commands(text):
            yield from _helps(tree, (*words, word))


def _schema(tree: Tree, data: Path) -> str:
    """The tables of a new database, by name, and the migration that it stands at.

    The lines of a statement are sorted: a migration that copies a table writes its constraints in an order that chance chooses.
    """
    done = tree.errata("migrate", DATA_DIR=str(data))
    if done.returncode:
        return f"errata migrate ended with {done.returncode}\n{done.stderr}"
    with closing(sqlite3.connect(data / "errata.db")) as database:
        made = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name").fetchall()
        stands = database.execute("SELECT version_num FROM alembic_version").fetchall()
    return "\n\n".join([f"revision {stands}", *(sort_lines(sql) for (sql,) in made)])


def _show(found: Sequence[DocumentDifference]) -> None:
    for one in found:
        if one.diff:
            print("\n".join(one.diff), flush=True)
