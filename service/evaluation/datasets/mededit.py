"""MedEditBench (MedEditEval): medical questions with inline options, and three kinds of targets.

`gta` is the right option, `re` the reference rationale, `sgr` a rationale that the model wrote. The shuffled question and
`gen_qa` measure generality; `ret_qa` measures locality.
"""

from collections.abc import Callable
from functools import partial

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import drop_missing, read_locality, read_pair, read_portability, read_rephrases
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int, *, target: str) -> list[Record]:
    """Rephrases have answers of their own: their options are in another order, or the question is another one."""
    return [
        Record(
            id=row.read_optional("id") or f"mededitbench-{number}",
            prompt=row.read_text("ori_q"),
            target=row.read_text(target),
            subject=row.read_optional("subj_word"),
            ground_truth=row.read_optional("0shot_ori_a"),
            rephrases=drop_missing(
                _probe(row, "shuffle_ori_qa", "s_q", "s_a", "shuffled"), _probe(row, "gen_qa", "q", "a", "generalisation")
            )
            + read_rephrases(row),
            locality=drop_missing(_probe(row, "ret_qa", "q", "a", "retention")) + read_locality(row),
            portability=read_portability(row),
        )
    ]


def _probe(row: Fields, name: str, question: str, answer: str, group: str) -> EvalProbe | None:
    return read_pair(row.read_object(name), question, answer, group=group)


def _reader(target: str) -> Callable[[Fields, int], list[Record]]:
    return partial(_read, target=target)


MEDEDITBENCH = Schema("mededitbench", has_fields("ori_q", "gta"), _reader("gta"))
MEDEDITEVAL = Schema("medediteval", has_fields("ori_q", "gta"), _reader("gta"))
MEDEDITBENCH_RATIONALE = Schema("mededitbench_rationale", has_fields("ori_q", "re"), _reader("re"))
MEDEDITBENCH_SELF = Schema("mededitbench_self", has_fields("ori_q", "sgr"), _reader("sgr"))
