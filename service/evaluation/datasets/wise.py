"""WISE's temporal set: a topic and the paragraph that is new about it. `ood_rephrase` asks for it far from the edit's wording."""

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.knowedit import read_fact
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import Record


def _read(row: Fields, number: int) -> list[Record]:
    return [read_fact(row, f"wise-temporal-{number}")]


WISE_TEMPORAL = Schema("wise_temporal", has_fields("prompt", "target_new", "ood_rephrase"), _read)
