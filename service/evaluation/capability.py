"""What edits must not cost: how many small tasks a version still solves, as a share of what the base model solves."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.evaluation.metrics import Reference, choices
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_row


@dataclass(frozen=True)
class Task:
    """One small question with one right answer."""

    skill: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Capability:
    """Greedy exact match on the tasks."""

    version: float
    base: float
    by_skill: dict[str, tuple[float, float]]  # skill → (version, base)

    @property
    def ratio(self) -> float | None:
        """The version's share over the base model's; None where the base model solves nothing."""
        return self.version / self.base if self.base else None


def capability(view: View, adapter: Adapter | None, reference: Reference, tasks: Sequence[Task]) -> Capability:
    """How a version solves `tasks`, beside the base model."""
    rows = [encode_row(reference.base, task.prompt, task.answer) for task in tasks]
    right = [ids == row.target_ids for ids, row in zip(choices(view, adapter, rows), rows, strict=True)]
    base_right = [ids == row.target_ids for ids, row in zip(reference.choices(rows), rows, strict=True)]
    return Capability(
        version=_share(right),
        base=_share(base_right),
        by_skill={
            skill: (_share_of(skill, tasks, right), _share_of(skill, tasks, base_right))
            for skill in sorted({t.skill for t in tasks})
        },
    )


def _share_of(skill: str, tasks: Sequence[Task], right: Sequence[bool]) -> float:
    return _share([good for task, good in zip(tasks, right, strict=True) if task.skill == skill])


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else 0.0
