"""MQuAKE: several rewrites a case, and questions over several hops whose answer follows from all of them.

One record a rewrite, named `<case>-<n>`, all of a case with the same `case`. The questions over several hops can only be right
once every rewrite of the case is in, so they are portability probes of the *last* one (group `multi_hop`), as are the single hops
that no rewrite of the case teaches (group `single_hop`). A rewrite's own question, the same fact put as one, is its rephrase.
"""

from service.evaluation.datasets.counterfact import fill_template
from service.evaluation.datasets.fields import Fields, build_aliases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    rewrites = row.objects("requested_rewrite")
    if not rewrites:
        raise BadRow("requested_rewrite must hold at least one rewrite")
    case = row.name("case_id") or f"mquake-{number}"
    taught = {question for rewrite in rewrites if (question := rewrite.maybe("question")) is not None}
    hops = _multi_hop(row) + _single_hop(row, taught)
    last = len(rewrites) - 1
    return [_record(rewrite, case, place, hops if place == last else ()) for place, rewrite in enumerate(rewrites)]


def _record(rewrite: Fields, case: str, place: int, portability: tuple[EvalProbe, ...]) -> Record:
    subject, question = rewrite.words("subject"), rewrite.maybe("question")
    return Record(
        id=f"{case}-{place + 1}",
        prompt=fill_template(rewrite, "prompt", subject),
        target=rewrite.object("target_new").words("str"),
        subject=subject,
        relation=rewrite.maybe("relation_id"),
        ground_truth=rewrite.object("target_true").maybe("str"),
        rephrases=(EvalProbe(prompt=question),) if question else (),
        portability=portability,
        case=case,
    )


def _multi_hop(row: Fields) -> tuple[EvalProbe, ...]:
    answer = row.maybe("new_answer")
    if answer is None:
        return ()
    aliases = build_aliases(((answer, *row.texts("new_answer_alias")),))
    return tuple(EvalProbe(prompt=prompt, answer=answer, group="multi_hop", aliases=aliases) for prompt in row.texts("questions"))


def _single_hop(row: Fields, taught: set[str]) -> tuple[EvalProbe, ...]:
    probes = []
    for hop in row.objects("new_single_hops"):
        question, answer = hop.maybe("question"), hop.maybe("answer")
        if question is not None and answer is not None and question not in taught:
            aliases = build_aliases(((answer, *hop.texts("answer_alias")),))
            probes.append(EvalProbe(prompt=question, answer=answer, group="single_hop", aliases=aliases))
    return tuple(probes)


MQUAKE = Schema("mquake", lambda row: isinstance(row.get("requested_rewrite"), list), _read)
