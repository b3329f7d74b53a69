"""WISE's temporal set: a topic and the paragraph that is new about it. `ood_rephrase` asks for it far from the edit's wording."""

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import read_locality, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import Record


def _read(row: Fields, number: int) -> list[Record]:
    return [
        Record(
            id=f"wise-temporal-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target_new"),
            subject=row.read_optional("subject"),
            ground_truth=row.read_first_answer("ground_truth", "target_old"),
            rephrases=read_rephrases(row),
            locality=read_locality(row),
            portability=read_portability(row),
        )
    ]


WISE_TEMPORAL = Schema("wise_temporal", has_fields("prompt", "target_new", "ood_rephrase"), _read)
