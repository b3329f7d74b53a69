"""The part *bytes*: the same edits, retrains and rollbacks in both revisions must give the same checkpoints and answers.

Checkpoints are compared by the SHA-256 of the whole file. A checkpoint has neither ids nor times, and the seed of a fit depends
on the content of its edits, so the random ids of edits do not matter.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from benchmarks.compare.calls import generate_all, post_edit, read_all, read_head, retract, retrain, roll_back
from benchmarks.compare.differences import drop_expected, drop_fields, list_differences
from benchmarks.compare.facts import FACTS, EditFact
from benchmarks.compare.servers import RevisionServer, run_on_both
from benchmarks.compare.trees import Tree

# Fields of a row with a time or a random id.
UNSTABLE_FIELDS = frozenset(
    {"id", "superseded_by", "supersedes", "created_at", "applied_at", "started_at", "finished_at", "major_at", "at"}
)
# Fields of an edit's report at the moment when the edit becomes live. The scores follow later.
REPORT_FIELDS = ("method", "steps", "attempts", "loss", "taken")
ANOTHER_TARGET = "Cairo"


def compare_bytes(trees: tuple[Tree, Tree], room: Path, expected: Sequence[str]) -> dict[str, Any]:
    """Compare checkpoints, rows, reports and answers of every version."""
    before, after = run_on_both(trees, room, run_scenario)
    changes = list(list_differences(before, after))
    differences = drop_expected(changes, expected)
    return {
        "versions": [{name: row[name] for name in ("number", "kind", "digest")} for row in before["versions"]],
        "answers": sum(len(texts) for texts in before["answers"].values()),
        "expected": len(changes) - len(differences),
        "differences": differences,
    }


def run_scenario(server: RevisionServer, client: httpx.Client) -> dict[str, Any]:
    """Publish versions in every way, one after another. Returns the rows, reports and answers at the end."""
    one, two, three, four, five, six = FACTS[:6]
    reports = _apply(client, [one, two, three])
    retrain(client, "minor")  # from the base, since nothing is consolidated yet
    reports += _apply(client, [four, five])
    retrain(client, "minor")
    reports += _apply(client, [six])
    retract(client, _read_newest(client))
    roll_back(client, read_head(client) - 1)
    reports.append(_pick_report(post_edit(client, three, target=ANOTHER_TARGET)))
    retrain(client, "major")
    reports += _apply(client, [FACTS[6]])
    versions = read_all(client, "/versions")
    return {
        "neutral sentences": _hash_files(server.data / "neutral"),
        "versions": drop_fields(versions, UNSTABLE_FIELDS),
        "edits": drop_fields(read_all(client, "/edits"), UNSTABLE_FIELDS),
        "jobs": drop_fields(read_all(client, "/jobs"), UNSTABLE_FIELDS | {"log"}),  # a stage that is over soon may have no line
        "reports": reports,
        "answers": {str(row["number"]): generate_all(client, row["number"]) for row in versions},
    }


def _apply(client: httpx.Client, facts: Sequence[EditFact]) -> list[dict[str, Any]]:
    return [_pick_report(post_edit(client, fact)) for fact in facts]


def _pick_report(edit: dict[str, Any]) -> dict[str, Any]:
    return {name: (edit["report"] or {}).get(name) for name in REPORT_FIELDS}


def _read_newest(client: httpx.Client) -> dict[str, Any]:
    return read_all(client, "/edits")[-1]


def _hash_files(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()}
