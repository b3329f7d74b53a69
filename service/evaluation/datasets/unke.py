"""UnKE: questions that are answered with a paragraph, and questions about the details of that paragraph."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import EMPTY_ANSWER, read_locality, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    paraphrases = tuple(EvalProbe(prompt=prompt) for prompt in row.read_texts("para_question"))
    return [
        Record(
            id=row.read_optional("id") or f"unke-{number}",
            prompt=row.read_text("question"),
            target=row.read_text("answer"),
            rephrases=paraphrases + read_rephrases(row),
            locality=read_locality(row),
            portability=_read_details(row) + read_portability(row),
        )
    ]


def _read_details(row: Fields) -> tuple[EvalProbe, ...]:
    """`sub_question` and `sub_answer` are lists in the same order."""
    questions, answers = row.read_texts("sub_question"), row.read_texts("sub_answer")
    for _ in range(abs(len(questions) - len(answers))):
        row.note("sub_question", EMPTY_ANSWER)
    pairs = zip(questions, answers, strict=False)
    return tuple(EvalProbe(prompt=question, answer=answer, group="sub_question") for question, answer in pairs)


def _is_match(row: Mapping[str, Any]) -> bool:
    return has_fields("question", "answer")(row) and ("para_question" in row or "sub_question" in row)


UNKE = Schema("unke", _is_match, _read)
