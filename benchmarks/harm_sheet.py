"""What a candidate of the acceptance trials changes, as a reader sees it, the labels, and how both agree with acceptance.

The command prints the candidates of a trial in an order that tells nothing, without what acceptance said. A label is kept under
the digest of what was read, so that a trial with other answers has no labels until somebody reads it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.command import build_parser
from service.bench.ground.asking import Ask
from service.bench.ground.contenders import Contender, VersionContender, read_whole
from service.bench.ground.judging import first_clause
from service.bench.ground.records import LOCALITY_GROUPS, GroundEdit
from service.bench.ground.scores import list_questions

LABELS = Path(__file__).parent / "labels"
HARMFUL = "harmful"  # the other label is "harmless"
SHOWN = 8  # changed answers of one group


@dataclass(frozen=True)
class RememberingContender(VersionContender):
    """A version that answers every question once."""

    answers: dict[Ask, str] = field(default_factory=dict, compare=False)

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The version's answers."""
        new = [ask for ask in dict.fromkeys(asks) if ask not in self.answers]
        self.answers.update(zip(new, super().answer(new, live), strict=True))
        return [self.answers[ask] for ask in asks]


def read_changes(contender: Contender, base: Contender, edits: Sequence[GroundEdit]) -> dict[str, Any]:
    """What a reader sees: the edits with their answers, and of each group of locality how many were asked, and what changed."""
    groups: dict[str, dict[str, Any]] = {}
    questions = list_questions(edits, edits)
    asks = [question.probe.ask for question in questions]
    for question, after, before in zip(questions, contender.answer(asks, edits), base.answer(asks, ()), strict=True):
        if question.probe.group in LOCALITY_GROUPS:
            group = groups.setdefault(question.probe.group, {"asked": 0, "changed": []})
            group["asked"] += 1
            if first_clause(after) != first_clause(before):
                group["changed"].append([read_whole(question.probe.ask), first_clause(before), first_clause(after)])
    return {"edits": [[edit.ask.text, edit.truth, edit.target] for edit in edits], "groups": groups}


def digest_of(row: Mapping[str, Any]) -> str:
    """The digest of what is read of a candidate."""
    return hashlib.sha256(json.dumps(_seen(row), sort_keys=True).encode()).hexdigest()[:16]


def read_labels(model: str) -> dict[str, str]:
    """The labels of a model's candidates by the digest of what was read; empty where nobody read any."""
    file = LABELS / f"harm_{model}.json"
    labels: dict[str, str] = json.loads(file.read_bytes()) if file.exists() else {}
    return labels


def count_by_hand(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, Any] | None:
    """How acceptance, the rule of an earlier release and the rule of harm agree with the labels; None if not all have one."""
    read = [labels.get(digest_of(row)) if "changes" in row else None for row in rows]
    if not rows or None in read:
        return None
    is_harmful = [label == HARMFUL for label in read]
    figures: dict[str, Any] = {"candidates": len(rows), "harmful": sum(is_harmful)}
    for name, key in (("now", "refused"), ("before", "refused before"), ("rule", "harmful")):
        figures[name] = count_agreement([row[key] for row in rows], is_harmful)
    return figures


def count_agreement(refused: Sequence[bool], harmful: Sequence[bool]) -> dict[str, Any]:
    """The share of candidates on which a judge agrees with what is harmful, and how often it errs in either way."""
    both = list(zip(refused, harmful, strict=True))
    return {
        "agreement": sum(one == other for one, other in both) / len(both),
        "harm accepted": sum(harm and not one for one, harm in both),
        "harmless refused": sum(one and not harm for one, harm in both),
    }


def describe(row: Mapping[str, Any]) -> str:
    """A candidate for a reader, without what acceptance or the rule of harm says of it."""
    seen = _seen(row)
    lines = [f"== {digest_of(row)}"]
    lines += [f"edit: {prompt!r}: {truth!r} becomes {target!r}" for prompt, truth, target in seen["edits"]]
    for name, group in seen["groups"].items():
        lines.append(f"{name}: {len(group['changed'])} of {group['asked']} changed")
        lines += [f"    {prompt!r}: {before!r} becomes {after!r}" for prompt, before, after in group["changed"][:SHOWN]]
    lines.append(f"prose: likeliest token kept {seen['prose']}, {seen['divergence']} nats a token")
    return "\n".join(lines)


def _seen(row: Mapping[str, Any]) -> dict[str, Any]:
    prose = {name: None if row["kept"][name] is None else round(row["kept"][name], 2) for name in ("prose", "divergence")}
    return {**row["changes"], **prose}


def main() -> None:
    """The command."""
    arguments = build_parser(__doc__).parse_args()
    for file in sorted(arguments.results.glob(f"acceptance_trials_{arguments.model}*.json")):
        rows = [row for row in json.loads(file.read_bytes())["figures"]["rows"] if "changes" in row]
        print(f"# {file.name}", *sorted(map(describe, rows)), sep="\n\n")


if __name__ == "__main__":
    main()
