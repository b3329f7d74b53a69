"""QAEdit (WILD): natural questions with five locality questions each. Noise in the targets is not removed."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import read_locality, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import Record


def _read(row: Fields, number: int) -> list[Record]:
    return [
        Record(
            id=row.read_optional("id") or f"qaedit-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target"),
            subject=row.read_optional("subject"),
            ground_truth=row.read_first_answer("ground_truth", "target_old"),
            rephrases=read_rephrases(row),
            locality=read_locality(row),
            portability=read_portability(row),
        )
    ]


def _is_match(row: Mapping[str, Any]) -> bool:
    locality = row.get("locality")
    return (
        has_fields("prompt", "target")(row)
        and isinstance(locality, list)
        and any(isinstance(probe, dict) and "loc" in probe for probe in locality)
    )


QAEDIT = Schema("qaedit", _is_match, _read)
