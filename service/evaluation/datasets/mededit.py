"""MedEditBench (MedEditEval): medical questions with their options inline, and three things one may edit in.

`gta` is the right option, `re` the reference rationale, `sgr` a rationale the model wrote. The shuffled question and `gen_qa`
ask whether the edit generalises, `ret_qa` whether what was known is retained.
"""

from collections.abc import Callable
from functools import partial

from service.evaluation.datasets.fields import Fields, present
from service.evaluation.datasets.schema import Schema, has
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int, *, target: str) -> list[Record]:
    """Rephrases have answers of their own: the options moved, or the question is another one."""
    return [
        Record(
            id=row.name("id") or f"mededitbench-{number}",
            prompt=row.words("ori_q"),
            target=row.words(target),
            subject=row.maybe("subj_word"),
            ground_truth=row.maybe("0shot_ori_a"),
            rephrases=present(
                _asked(row, "shuffle_ori_qa", "s_q", "s_a", "shuffled"), _asked(row, "gen_qa", "q", "a", "generalisation")
            ),
            locality=present(_asked(row, "ret_qa", "q", "a", "retention")),
        )
    ]


def _asked(row: Fields, name: str, question: str, answer: str, group: str) -> EvalProbe | None:
    return row.object(name).probe(question, answer, group=group)


def _with(target: str) -> Callable[[Fields, int], list[Record]]:
    return partial(_read, target=target)


MEDEDITBENCH = Schema("mededitbench", has("ori_q", "gta"), _with("gta"))
MEDEDITEVAL = Schema("medediteval", has("ori_q", "gta"), _with("gta"))
MEDEDITBENCH_RATIONALE = Schema("mededitbench_rationale", has("ori_q", "re"), _with("re"))
MEDEDITBENCH_SELF = Schema("mededitbench_self", has("ori_q", "sgr"), _with("sgr"))
