"""The part *store*: the revision after opens a store of the revision before, answers from it, verifies it and edits it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.compare.calls import generate_all, post_edit, read_all, read_head, retract, retrain, roll_back
from benchmarks.compare.differences import list_differences
from benchmarks.compare.facts import FACTS
from benchmarks.compare.servers import run_server
from benchmarks.compare.trees import Tree


def compare_store(trees: tuple[Tree, Tree], room: Path) -> dict[str, Any]:
    """Compare the rows and answers of a store of the revision before, as both revisions read them."""
    before, after = trees
    data = room / "data-store"
    with run_server(before, data) as client:
        _write_store(client)
        rows_before = _read_store(client)
    with run_server(after, data) as client:
        differences = list(list_differences(rows_before, _read_store(client)))
        differences += _edit_on_top(client)
    differences += _verify(after, data)
    return {
        "versions": len(rows_before["versions"]),
        "edits": len(rows_before["edits"]),
        "answers": sum(len(texts) for texts in rows_before["answers"].values()),
        "differences": differences,
    }


def _write_store(client: httpx.Client) -> None:
    """Write a store with both kinds of retrains, a rollback, and retractions of consolidated and of applied edits."""
    in_tensors = [post_edit(client, fact) for fact in FACTS[:3]]
    retrain(client, "major")
    for fact in FACTS[3:5]:
        post_edit(client, fact)
    retrain(client, "minor")
    post_edit(client, FACTS[5])
    roll_back(client, read_head(client) - 1)
    in_window = post_edit(client, FACTS[6])
    post_edit(client, FACTS[7])
    retract(client, in_window)
    retract(client, in_tensors[0])
    retrain(client, "major")  # due by the retraction; a second request joins a queued one
    post_edit(client, FACTS[8])


def _read_store(client: httpx.Client) -> dict[str, Any]:
    """Every row of the API, and the answers of every version."""
    versions = read_all(client, "/versions")
    return {
        "store": client.get("/model").raise_for_status().json()["store"],
        "head": read_head(client),
        "versions": versions,
        "edits": read_all(client, "/edits"),
        "jobs": read_all(client, "/jobs"),
        "answers": {str(row["number"]): generate_all(client, row["number"]) for row in versions},
    }


def _edit_on_top(client: httpx.Client) -> Iterator[str]:
    """The faults of one more edit on the opened store."""
    head = read_head(client)
    edit = post_edit(client, FACTS[9])
    if edit["status"] != "applied" or read_head(client) != head + 1:
        yield f"an edit on top is {edit['status']}, and the head went from {head} to {read_head(client)}"


def _verify(tree: Tree, data: Path) -> Iterator[str]:
    """The output of `errata versions verify`, if it does not pass."""
    process = tree.errata("versions", "verify", DATA_DIR=str(data))
    if process.returncode:
        yield f"errata versions verify ended with {process.returncode}: {process.stdout}{process.stderr}"
