"""WikiBigEdit: its own form, which EasyEdit and UltraEdit read, and LocFT's flat form of 3,000 rows."""

from service.evaluation.datasets.fields import Fields, drop_missing
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read_original(row: Fields, number: int) -> list[Record]:
    """`personas` are the same question in other wording, with the same answer. All fields but `update` and `ans` may be null."""
    answer = row.read_text("ans")
    rephrase = row.read_optional("rephrase")
    personas = tuple(EvalProbe(prompt=prompt, answer=answer, group="personas") for prompt in row.read_texts("personas"))
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.read_text("update"),
            target=answer,
            subject=row.read_optional("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(row.read_probe("loc", "loc_ans")),
            portability=personas + drop_missing(row.read_probe("mhop", "mhop_ans", group="mhop")),
        )
    ]


def _read_flat(row: Fields, number: int) -> list[Record]:
    rephrase = row.read_optional("rephrase_prompt")
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target_new"),
            subject=row.read_optional("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(row.read_probe("locality_prompt", "locality_ground_truth")),
        )
    ]


WIKIBIGEDIT = Schema("wikibigedit", has_fields("update", "ans"), _read_original)
WIKIBIGEDIT_LOCFT = Schema("wikibigedit_locft", has_fields("prompt", "target_new", "locality_prompt"), _read_flat)
