"""The probes of a row, in every form in which the field publishes them, and under every name.

A probe is a text, or an object with a question and an answer. A field holds one probe, a list of them, or an object of groups:
the name of each group with its probes. `train` is not read: a loaded probe is never open to training.
"""

from service.evaluation.datasets.fields import LONGEST_NAME, Fields
from service.evaluation.datasets.rows import BadRow
from service.evaluation.records import EvalProbe

EMPTY_ANSWER = "probe without an answer left out"
EMPTY_PROMPT = "probe without a prompt left out"

REPHRASES = {"rephrases": None, "rephrase": None, "rephrase_prompt": None, "rephrase_prompts": None, "ood_rephrase": "ood"}
# Names of a question and of its answer in one object.
PAIRS = (
    ("prompt", "answer"),
    ("prompt", "ground_truth"),
    ("question", "answer"),
    ("loc", "loc_ans"),
    ("New Question", "New Answer"),
)


def read_rephrases(row: Fields) -> tuple[EvalProbe, ...]:
    """Rephrases under each of the field's names, every one once; WISE's `ood_rephrase` is the group `ood`."""
    probes = (probe for name, group in REPHRASES.items() for probe in read_probes(row, name, group=group))
    return tuple(dict.fromkeys(probes))


def read_locality(row: Fields, *, group: str | None = None, needs_answer: bool = True) -> tuple[EvalProbe, ...]:
    """Locality probes, in a pair of fields or in `locality`. `group` is for probes that are in no group of the row's own."""
    return drop_missing(
        read_pair(row, "loc", "loc_ans", group=group), read_pair(row, "locality_prompt", "locality_ground_truth", group=group)
    ) + read_probes(row, "locality", group=group, needs_answer=needs_answer)


def read_portability(row: Fields, *, group: str | None = None) -> tuple[EvalProbe, ...]:
    """Portability probes, in a pair of fields or in `portability`. One without an answer cannot be scored and is left out."""
    pair = read_pair(row, "portability_prompt", "portability_ground_truth", group=group)
    return drop_missing(pair) + read_probes(row, "portability", group=group, needs_answer=True)


def read_probes(row: Fields, name: str, *, group: str | None = None, needs_answer: bool = False) -> tuple[EvalProbe, ...]:
    """The probes of one field. A probe without a prompt is left out and noted, and so is one without an answer that it needs."""
    probes: list[EvalProbe | None] = []
    for item in row.read_items(name):
        if isinstance(item, str):
            probes.append(_check(row, name, EvalProbe(prompt=item, group=group), needs_answer))
        elif (pair := _find_pair(item)) is not None:
            probes.append(_check(row, name, _read_object(item, *pair, group=group), needs_answer))
        else:
            for inner in item:
                probes += read_probes(item, inner, group=check_group(inner, name), needs_answer=needs_answer)
    return drop_missing(*probes)


def read_pair(row: Fields, prompt_field: str, answer_field: str, *, group: str | None = None) -> EvalProbe | None:
    """The probe of a prompt field and an answer field, with all right answers. None, and a note, where either is blank."""
    prompt, answers = row.read_optional(prompt_field), row.read_answers(answer_field)
    if prompt is None or not answers:
        if prompt_field in row or answer_field in row:
            row.note(prompt_field, EMPTY_PROMPT if prompt is None else EMPTY_ANSWER)
        return None
    return EvalProbe(prompt=prompt, answer=answers[0][0], group=group, aliases=build_aliases(answers))


def build_aliases(answers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """All answers with their spellings; nothing if there is one answer with one spelling."""
    return answers if sum(map(len, answers)) > 1 else ()


def add_aliases(answer: str | None, aliases: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """An answer together with answers that are right as well."""
    return build_aliases(((answer,), *aliases)) if answer is not None and aliases else aliases


def drop_missing(*probes: EvalProbe | None) -> tuple[EvalProbe, ...]:
    """The probes without None."""
    return tuple(probe for probe in probes if probe is not None)


def check_group(name: str, field: str) -> str:
    """The name of a group of `field`. Raises BadRow for a name that is blank or long."""
    if not name.strip() or len(name) > LONGEST_NAME:
        raise BadRow(f"{field} has a group without a name or with a long one")
    return name


def _find_pair(item: Fields) -> tuple[str, str] | None:
    """The names of question and answer in an object. None for an object of groups."""
    names = [(prompt, answer) for prompt, answer in PAIRS if item.is_text(prompt)]
    return next((pair for pair in names if pair[1] in item), names[0] if names else None)


def _read_object(item: Fields, prompt_field: str, answer_field: str, *, group: str | None) -> EvalProbe | None:
    prompt = item.read_optional(prompt_field)
    if prompt is None:
        return None
    answers = item.read_answers(answer_field)
    answer = answers[0][0] if answers else None
    return EvalProbe(
        prompt=prompt,
        answer=answer,
        group=item.read_optional("group") or group,
        pool=item.read_flag("pool"),
        aliases=build_aliases(answers) or add_aliases(answer, item.read_answers("aliases")),
    )


def _check(row: Fields, name: str, probe: EvalProbe | None, needs_answer: bool) -> EvalProbe | None:
    if probe is None or (needs_answer and probe.answer is None):
        row.note(name, EMPTY_PROMPT if probe is None else EMPTY_ANSWER)
        return None
    return probe
