"""MQuAKE: several rewrites a case, and multi-hop questions whose answer follows from all rewrites of the case.

Each rewrite is a record with the id `<case>-<n>` and its case in `case`. A multi-hop question can only be right after every
rewrite of the case. Therefore multi-hop questions are portability probes of the *last* rewrite (group `multi_hop`), as are the
single hops that no rewrite of the case edits (group `single_hop`). A rewrite's own question is its rephrase.
"""

from service.evaluation.datasets.counterfact import fill_template, read_target
from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import (
    EMPTY_ANSWER,
    EMPTY_PROMPT,
    build_aliases,
    read_locality,
    read_portability,
    read_rephrases,
)
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    rewrites = row.read_objects("requested_rewrite")
    if not rewrites:
        raise BadRow("requested_rewrite must hold at least one rewrite")
    case = row.read_optional("case_id") or f"mquake-{number}"
    edited_questions = {question for rewrite in rewrites if (question := rewrite.read_optional("question")) is not None}
    hops = _multi_hop(row) + _single_hop(row, edited_questions) + read_portability(row)
    last = len(rewrites) - 1
    return [_record(rewrite, case, index, hops if index == last else ()) for index, rewrite in enumerate(rewrites)]


def _record(rewrite: Fields, case: str, index: int, portability: tuple[EvalProbe, ...]) -> Record:
    subject, question = rewrite.read_text("subject"), rewrite.read_optional("question")
    return Record(
        id=f"{case}-{index + 1}",
        prompt=fill_template(rewrite, "prompt", subject),
        target=read_target(rewrite, "target_new").read_text("str"),
        subject=subject,
        relation=rewrite.read_optional("relation_id"),
        ground_truth=read_target(rewrite, "target_true").read_optional("str"),
        rephrases=((EvalProbe(prompt=question),) if question else ()) + read_rephrases(rewrite),
        locality=read_locality(rewrite),
        portability=portability + read_portability(rewrite),
        case=case,
    )


def _multi_hop(row: Fields) -> tuple[EvalProbe, ...]:
    answer = row.read_optional("new_answer")
    if answer is None:  # the questions stay unread, and are noted
        return ()
    aliases = build_aliases(((answer, *row.read_texts("new_answer_alias")),))
    return tuple(
        EvalProbe(prompt=prompt, answer=answer, group="multi_hop", aliases=aliases) for prompt in row.read_texts("questions")
    )


def _single_hop(row: Fields, edited_questions: set[str]) -> tuple[EvalProbe, ...]:
    probes = []
    for hop in row.read_objects("new_single_hops"):
        question, answer, aliases = hop.read_optional("question"), hop.read_optional("answer"), hop.read_texts("answer_alias")
        if question is None or answer is None:
            hop.note("question", EMPTY_PROMPT if question is None else EMPTY_ANSWER)
        elif question not in edited_questions:
            spellings = build_aliases(((answer, *aliases),))
            probes.append(EvalProbe(prompt=question, answer=answer, group="single_hop", aliases=spellings))
    return tuple(probes)


MQUAKE = Schema("mquake", lambda row: isinstance(row.get("requested_rewrite"), list), _read)
