"""QAEdit (WILD): natural questions with five locality questions each. Noise in the targets is kept as it is."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields, drop_missing
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    rephrase = row.maybe("rephrase")
    return [
        Record(
            id=row.name("id") or f"qaedit-{number}",
            prompt=row.words("prompt"),
            target=row.words("target"),
            subject=row.maybe("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(*(probe.probe("loc", "loc_ans") for probe in row.objects("locality"))),
        )
    ]


def _fits(row: Mapping[str, Any]) -> bool:
    local = row.get("locality")
    return (
        has_fields("prompt", "target")(row)
        and isinstance(local, list)
        and any(isinstance(one, dict) and "loc" in one for one in local)
    )


QAEDIT = Schema("qaedit", _fits, _read)
