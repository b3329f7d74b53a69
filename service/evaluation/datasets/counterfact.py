"""CounterFact: the flat form of EasyEdit and LocFT, and ROME's own form."""

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import read_locality, read_portability, read_rephrases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record

NEIGHBOURHOOD = "neighbourhood"  # other subjects whose true answer is the edited subject's: p(true) against p(new)
ATTRIBUTE = "attribute"  # other subjects whose true answer is the new one
PLACEHOLDER = "{}"


def fill_template(row: Fields, name: str, subject: str) -> str:
    """A prompt with the subject in its placeholder. Raises BadRow unless there is exactly one placeholder."""
    template = row.read_text(name)
    if template.count(PLACEHOLDER) != 1:
        raise BadRow(f"requested_rewrite.{name} must have one place {PLACEHOLDER} for the subject")
    return template.replace(PLACEHOLDER, subject)


def read_target(rewrite: Fields, name: str) -> Fields:
    """A target of a rewrite: its text is `str`, and `id` is Wikidata's."""
    target = rewrite.read_object(name)
    target.skip("id")
    return target


def _read_flat(row: Fields, number: int) -> list[Record]:
    return [
        Record(
            id=row.read_optional("case_id") or f"counterfact-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target_new"),
            subject=row.read_optional("subject"),
            ground_truth=row.read_first_answer("ground_truth", "target_old"),
            rephrases=read_rephrases(row),
            locality=read_locality(row, group=NEIGHBOURHOOD),
            portability=read_portability(row),
        )
    ]


def _read_rome(row: Fields, number: int) -> list[Record]:
    """The row may have the portability question of Yao et al. (EasyEdit), beside the rewrite or in it."""
    rewrite = row.read_object("requested_rewrite")
    subject = rewrite.read_text("subject")
    new, true = read_target(rewrite, "target_new").read_text("str"), read_target(rewrite, "target_true").read_text("str")
    return [
        Record(
            id=row.read_optional("case_id") or f"counterfact-{number}",
            prompt=fill_template(rewrite, "prompt", subject),
            target=new,
            subject=subject,
            relation=rewrite.read_optional("relation_id"),
            ground_truth=true,
            rephrases=_probes(row, "paraphrase_prompts", None, None) + read_rephrases(row),
            locality=_probes(row, "neighborhood_prompts", true, NEIGHBOURHOOD)
            + _probes(row, "attribute_prompts", new, ATTRIBUTE)
            + read_locality(row),
            portability=read_portability(row, group="Reasoning") + read_portability(rewrite, group="Reasoning"),
            generation=row.read_texts("generation_prompts"),
        )
    ]


def _probes(row: Fields, name: str, answer: str | None, group: str | None) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=prompt, answer=answer, group=group) for prompt in row.read_texts(name))


COUNTERFACT = Schema(
    "counterfact", lambda row: has_fields("prompt", "target_new", "locality_prompt", "ground_truth")(row), _read_flat
)
COUNTERFACT_ROME = Schema("counterfact_rome", lambda row: isinstance(row.get("requested_rewrite"), dict), _read_rome)
