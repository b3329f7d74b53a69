"""The part *store*: what one revision wrote, the other one opens, answers from, verifies and goes on with."""

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
    """A store of the revision before, as the revision after finds it."""
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
    """A store with all that a store may hold: both kinds of retrains, a rollback, and edits taken back in either place."""
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
    retrain(client, "major")  # the retraction makes it due; one that is queued is not doubled
    post_edit(client, FACTS[8])


def _read_store(client: httpx.Client) -> dict[str, Any]:
    """Every row that is shown, and what every version says."""
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
    """What is wrong with an edit on top of what was found."""
    head = read_head(client)
    edit = post_edit(client, FACTS[9])
    if edit["status"] != "applied" or read_head(client) != head + 1:
        yield f"an edit on top is {edit['status']}, and the head went from {head} to {read_head(client)}"


def _verify(tree: Tree, data: Path) -> Iterator[str]:
    """What `errata versions verify` says of the checkpoints, if it does not pass."""
    process = tree.errata("versions", "verify", DATA_DIR=str(data))
    if process.returncode:
        yield f"errata versions verify ended with {process.returncode}: {process.stdout}{process.stderr}"
