"""KnowEdit's facts (WikiData_recent, WikiData_counterfact, ZsRE) and its biographies (WikiBio).

Probes come in named groups, each answer as a text, a list of spellings, or a list of answers with their spellings each. Answers
that are empty leave their probe out, not the row.
"""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import read_locality, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import Record


def read_fact(row: Fields, id: str) -> Record:
    """The record of a row with the fields of EasyEdit's own files."""
    return Record(
        id=id,
        prompt=row.read_text("prompt"),
        target=row.read_text("target_new"),
        subject=row.read_optional("subject"),
        ground_truth=row.read_first_answer("ground_truth", "target_old"),
        rephrases=read_rephrases(row),
        locality=read_locality(row),
        portability=read_portability(row),
    )


def _read_facts(row: Fields, number: int) -> list[Record]:
    return [read_fact(row, f"knowedit-{number}")]


def _read_biography(row: Fields, number: int) -> list[Record]:
    """The prompt is the biography so far, the target its next sentence."""
    return [
        Record(
            id=f"knowedit-wikibio-{number}",
            prompt=row.read_text("text"),
            target=row.read_text("labels"),
            subject=row.read_optional("concept"),
            rephrases=read_rephrases(row),
            locality=read_locality(row),
            portability=read_portability(row),
        )
    ]


def _is_match(row: Mapping[str, Any]) -> bool:
    return has_fields("prompt", "target_new")(row) and any(
        isinstance(row.get(name), dict) for name in ("portability", "locality")
    )


KNOWEDIT = Schema("knowedit", _is_match, _read_facts)
KNOWEDIT_WIKIBIO = Schema("knowedit_wikibio", has_fields("text", "labels", "concept"), _read_biography)
