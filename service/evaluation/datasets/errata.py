"""Errata's own form: an edit in the API's names or the field's (`target` or `target_new`, `rephrases` or `rephrase_prompt`)."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import add_aliases, read_locality, read_portability, read_rephrases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import Record

SURFACES = ("raw", "chat")


def _read(row: Fields, number: int) -> list[Record]:
    target = row.read_text("target_new" if "target_new" in row and "target" not in row else "target")
    return [
        Record(
            id=row.read_optional("id") or f"edit-{number}",
            prompt=row.read_text("prompt"),
            target=target,
            aliases=add_aliases(target, row.read_answers("aliases")),
            subject=row.read_optional("subject"),
            relation=row.read_optional("relation"),
            conflict_key=row.read_optional("conflict_key"),
            ground_truth=row.read_first_answer("ground_truth", "target_old"),
            surfaces=_surfaces(row),
            rephrases=read_rephrases(row),
            locality=read_locality(row, needs_answer=False),
            portability=read_portability(row),
            generation=row.read_texts("generation"),
            case=row.read_optional("case"),
        )
    ]


def _surfaces(row: Fields) -> tuple[str, ...]:
    surfaces = row.read_texts("surfaces")
    if not set(surfaces) <= set(SURFACES):
        raise BadRow("surfaces must be raw or chat")
    return tuple(dict.fromkeys(surfaces))


def _is_match(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and ("target" in row or "target_new" in row)


ERRATA = Schema("errata", _is_match, _read)
