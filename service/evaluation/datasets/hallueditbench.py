"""HalluEditBench: facts that one model got wrong, a CSV file for each topic and model.

Yes-or-no, multiple choice and reversed questions measure generality, as in its paper; the questions over two to six hops measure
portability. Its locality questions have no answers: they are compared with the base model's.
"""

import re

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import (
    drop_missing,
    read_locality,
    read_pair,
    read_portability,
    read_probes,
    read_rephrases,
)
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record

_HOPS = re.compile(r"question_(\d+hop)")
_OUTPUT = re.compile(r"output_.+")


def _read(row: Fields, number: int) -> list[Record]:
    """The ground truth of an edit is what the model answered before (`output_<model>`)."""
    outputs = [name for name in row if _OUTPUT.fullmatch(name)]
    return [
        Record(
            id=f"hallueditbench-{number}",
            prompt=row.read_text("question"),
            target=row.read_text("object"),
            subject=row.read_optional("subject"),
            relation=row.read_optional("relation"),
            ground_truth=row.read_first_answer(*outputs),
            rephrases=_read_generality(row) + read_rephrases(row),
            locality=read_probes(row, "locality_question") + read_locality(row),
            portability=_read_hops(row) + read_portability(row),
        )
    ]


def _read_generality(row: Fields) -> tuple[EvalProbe, ...]:
    return (
        read_probes(row, "paraphrased_question", group="paraphrased")
        + _answered(row, "yes_question", "Yes", "yes")
        + _answered(row, "no_question", "No", "no")
        + _answered(row, "reversed_relation_question", row.read_text("subject"), "reversed_relation")
        + _read_choice(row)
    )


def _answered(row: Fields, name: str, answer: str, group: str) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=prompt, answer=answer, group=group) for prompt in row.read_texts(name))


def _read_choice(row: Fields) -> tuple[EvalProbe, ...]:
    """The edit's question with the choices behind it; the answer is the letter of the right one."""
    probe = read_pair(row, "multiple_choice_with_letters", "multiple_choice_labels", group="multiple_choice")
    question = row.read_text("question")
    return () if probe is None else (EvalProbe(prompt=f"{question} {probe.prompt}", answer=probe.answer, group=probe.group),)


def _read_hops(row: Fields) -> tuple[EvalProbe, ...]:
    names = [match for name in row if (match := _HOPS.fullmatch(name))]
    return drop_missing(*(read_pair(row, match[0], f"answer_{match[1]}", group=match[1]) for match in names))


HALLUEDITBENCH = Schema("hallueditbench", has_fields("subject", "relation", "object", "question"), _read)
