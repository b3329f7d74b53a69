"""WikiBigEdit: its own form, which EasyEdit and UltraEdit read, and LocFT's flat form of 3,000 rows."""

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import drop_missing, read_locality, read_pair, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read_original(row: Fields, number: int) -> list[Record]:
    """`personas` are the same question in other wording, with the same answer. All fields but `update` and `ans` may be null."""
    answer = row.read_text("ans")
    personas = tuple(EvalProbe(prompt=prompt, answer=answer, group="personas") for prompt in row.read_texts("personas"))
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.read_text("update"),
            target=answer,
            subject=row.read_optional("subject"),
            rephrases=read_rephrases(row),
            locality=read_locality(row),
            portability=personas + drop_missing(read_pair(row, "mhop", "mhop_ans", group="mhop")) + read_portability(row),
        )
    ]


def _read_flat(row: Fields, number: int) -> list[Record]:
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target_new"),
            subject=row.read_optional("subject"),
            ground_truth=row.read_first_answer("target_old"),
            rephrases=read_rephrases(row),
            locality=read_locality(row),
            portability=read_portability(row),
        )
    ]


WIKIBIGEDIT = Schema("wikibigedit", has_fields("update", "ans"), _read_original)
WIKIBIGEDIT_LOCFT = Schema("wikibigedit_locft", has_fields("prompt", "target_new", "locality_prompt"), _read_flat)
