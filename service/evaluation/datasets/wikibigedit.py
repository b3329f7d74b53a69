"""WikiBigEdit: its own form, as EasyEdit and UltraEdit read it, and LocFT's flat 3,000."""

from service.evaluation.datasets.fields import Fields, drop_missing
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _original(row: Fields, number: int) -> list[Record]:
    """`personas` asks the same in other people's words and has the same answer; all but `update` and `ans` may be null."""
    answer = row.words("ans")
    rephrase = row.maybe("rephrase")
    personas = tuple(EvalProbe(prompt=prompt, answer=answer, group="personas") for prompt in row.texts("personas"))
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.words("update"),
            target=answer,
            subject=row.maybe("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(row.probe("loc", "loc_ans")),
            portability=personas + drop_missing(row.probe("mhop", "mhop_ans", group="mhop")),
        )
    ]


def _flat(row: Fields, number: int) -> list[Record]:
    rephrase = row.maybe("rephrase_prompt")
    return [
        Record(
            id=f"wikibigedit-{number}",
            prompt=row.words("prompt"),
            target=row.words("target_new"),
            subject=row.maybe("subject"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(row.probe("locality_prompt", "locality_ground_truth")),
        )
    ]


WIKIBIGEDIT = Schema("wikibigedit", has_fields("update", "ans"), _original)
WIKIBIGEDIT_LOCFT = Schema("wikibigedit_locft", has_fields("prompt", "target_new", "locality_prompt"), _flat)
