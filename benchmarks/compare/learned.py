"""The part *bytes*: the same edits, retrains and rollbacks in both revisions must come to the same checkpoints and answers.

A checkpoint is compared by its SHA-256, over the whole file. It holds neither ids nor times, and a fit is seeded by what its
edits ask for, so the ids of edits, which are random, do not matter.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from benchmarks.compare.calls import answers, everything, head_of, post_edit, retract, retrain, roll_back
from benchmarks.compare.differences import differences, unexpected, without
from benchmarks.compare.facts import FACTS, Fact
from benchmarks.compare.servers import Server, on_both
from benchmarks.compare.trees import Tree

# Of a row: what tells of moments, and what names a row by a random id.
PASSING = frozenset(
    {"id", "superseded_by", "supersedes", "created_at", "applied_at", "started_at", "finished_at", "major_at", "at"}
)
# Of an edit's report at the moment that it is live; its scores come later.
REPORTED = ("method", "steps", "attempts", "loss", "taken")
ANOTHER_TARGET = "Cairo"


def compare_bytes(trees: tuple[Tree, Tree], room: Path, expected: Sequence[str]) -> dict[str, Any]:
    """Checkpoints, rows, reports and answers of every version, and where they differ."""
    before, after = on_both(trees, room, learned)
    found = list(differences(before, after))
    left = unexpected(found, expected)
    return {
        "versions": [{name: row[name] for name in ("number", "kind", "digest")} for row in before["versions"]],
        "answers": sum(len(said) for said in before["answers"].values()),
        "expected": len(found) - len(left),
        "differences": left,
    }


def learned(server: Server, client: httpx.Client) -> dict[str, Any]:
    """Every way in which a version comes about, one after another, and what there is in the end."""
    one, two, three, four, five, six = FACTS[:6]
    reports = _applied(client, [one, two, three])
    retrain(client, "minor")  # from the base, since nothing is in the tensors yet
    reports += _applied(client, [four, five])
    retrain(client, "minor")
    reports += _applied(client, [six])
    retract(client, _newest(client))
    roll_back(client, head_of(client) - 1)
    reports.append(_reported(post_edit(client, three, target=ANOTHER_TARGET)))
    retrain(client, "major")
    reports += _applied(client, [FACTS[6]])
    versions = everything(client, "/versions")
    return {
        "neutral sentences": _files(server.data / "neutral"),
        "versions": without(versions, PASSING),
        "edits": without(everything(client, "/edits"), PASSING),
        "jobs": without(everything(client, "/jobs"), PASSING | {"log"}),  # a stage that is over soon may have no line
        "reports": reports,
        "answers": {str(row["number"]): answers(client, row["number"]) for row in versions},
    }


def _applied(client: httpx.Client, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    return [_reported(post_edit(client, fact)) for fact in facts]


def _reported(edit: dict[str, Any]) -> dict[str, Any]:
    return {name: (edit["report"] or {}).get(name) for name in REPORTED}


def _newest(client: httpx.Client) -> dict[str, Any]:
    return everything(client, "/edits")[-1]


def _files(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()}
