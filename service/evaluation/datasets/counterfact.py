"""CounterFact: the flat form of EasyEdit and LocFT, and ROME's own form."""

from service.evaluation.datasets.fields import Fields, drop_missing
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


def _read_flat(row: Fields, number: int) -> list[Record]:
    rephrase = row.read_optional("rephrase_prompt")
    return [
        Record(
            id=row.read_id("case_id") or f"counterfact-{number}",
            prompt=row.read_text("prompt"),
            target=row.read_text("target_new"),
            subject=row.read_optional("subject"),
            ground_truth=row.read_first_answer("ground_truth"),
            rephrases=(EvalProbe(prompt=rephrase),) if rephrase else (),
            locality=drop_missing(row.read_probe("locality_prompt", "locality_ground_truth", group=NEIGHBOURHOOD)),
        )
    ]


def _read_rome(row: Fields, number: int) -> list[Record]:
    rewrite = row.read_object("requested_rewrite")
    subject = rewrite.read_text("subject")
    new, true = rewrite.read_object("target_new").read_text("str"), rewrite.read_object("target_true").read_text("str")
    return [
        Record(
            id=row.read_id("case_id") or f"counterfact-{number}",
            prompt=fill_template(rewrite, "prompt", subject),
            target=new,
            subject=subject,
            relation=rewrite.read_optional("relation_id"),
            ground_truth=true,
            rephrases=_probes(row, "paraphrase_prompts", None, None),
            locality=_probes(row, "neighborhood_prompts", true, NEIGHBOURHOOD)
            + _probes(row, "attribute_prompts", new, ATTRIBUTE),
            generation=row.read_texts("generation_prompts"),
        )
    ]


def _probes(row: Fields, name: str, answer: str | None, group: str | None) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=prompt, answer=answer, group=group) for prompt in row.read_texts(name))


COUNTERFACT = Schema(
    "counterfact", lambda row: has_fields("prompt", "target_new", "locality_prompt", "ground_truth")(row), _read_flat
)
COUNTERFACT_ROME = Schema("counterfact_rome", lambda row: isinstance(row.get("requested_rewrite"), dict), _read_rome)
