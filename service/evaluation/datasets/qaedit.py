"""QAEdit (WILD): natural questions with five locality questions each. Noise in the targets is not removed."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields, drop_missing
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    rephrase = row.read_optional("rephrase")
    return [
        Record(
            id=row.read_id("id") or f"qaedit-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target"),
            subject=row.read_optional("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(*(probe.read_probe("loc", "loc_ans") for probe in row.read_objects("locality"))),
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
