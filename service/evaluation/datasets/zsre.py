"""ZsRE in the form of MEND, EasyEdit, LocFT and UltraEdit, with and without portability."""

from service.evaluation.datasets.fields import Fields, drop_missing
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _record(row: Fields, number: int) -> Record:
    """The target is `alt`, in UltraEdit's copy `ans`. `answers` are the true answers; `pred` is a model's answer."""
    rephrase = row.read_optional("rephrase")
    return Record(
        id=f"zsre-{number}",
        prompt=row.read_text("src"),
        target=row.read_text("alt" if "alt" in row else "ans"),
        subject=row.read_optional("subject"),
        ground_truth=row.read_first_answer("answers") or row.read_optional("pred"),
        rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
        locality=drop_missing(row.read_probe("loc", "loc_ans", group="natural_questions")),
        portability=drop_missing(row.read_object("portability").read_probe("New Question", "New Answer", group="Reasoning")),
    )


def _read(row: Fields, number: int) -> list[Record]:
    return [_record(row, number)]


ZSRE_PORTABILITY = Schema("zsre_portability", lambda row: "src" in row and isinstance(row.get("portability"), dict), _read)
ZSRE = Schema("zsre", has_fields("src", "loc"), _read)
