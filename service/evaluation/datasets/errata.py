"""Our own: an edit in the words of the API or of the field (`target` or `target_new`, `rephrases` or `rephrase_prompt`)."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import EMPTY_PROMPT, Fields, build_aliases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import EvalProbe, Record

SURFACES = ("raw", "chat")


def _read(row: Fields, number: int) -> list[Record]:
    target = row.words("target_new" if "target_new" in row and "target" not in row else "target")
    rephrases = _probes(row, "rephrases") + tuple(EvalProbe(prompt=prompt) for prompt in row.texts("rephrase_prompt"))
    return [
        Record(
            id=row.name("id") or f"edit-{number}",
            prompt=row.words("prompt"),
            target=target,
            aliases=_aliases(target, row.answers("aliases")),
            subject=row.maybe("subject"),
            relation=row.maybe("relation"),
            conflict_key=row.maybe("conflict_key"),
            ground_truth=row.spelled("ground_truth"),
            surfaces=_surfaces(row),
            rephrases=rephrases,
            locality=_probes(row, "locality"),
            portability=_probes(row, "portability"),
            generation=row.texts("generation"),
            case=row.name("case"),
        )
    ]


def _probes(row: Fields, name: str) -> tuple[EvalProbe, ...]:
    """Each a prompt or an object; `train` is not read, a loaded probe is never trained."""
    given = ({"prompt": one} if isinstance(one, str) else one for one in row.items(name))
    found = [_probe(fields) for fields in Fields({name: list(given)}, row.notes).objects(name)]
    return tuple(probe for probe in found if probe is not None)


def _probe(fields: Fields) -> EvalProbe | None:
    prompt = fields.maybe("prompt")
    if prompt is None:
        fields.notes[EMPTY_PROMPT] += 1
        return None
    answers = fields.answers("answer")
    answer = answers[0][0] if answers else None
    return EvalProbe(
        prompt=prompt,
        answer=answer,
        group=fields.maybe("group"),
        pool=fields.flag("pool"),
        aliases=build_aliases(answers) or _aliases(answer, fields.answers("aliases")),
    )


def _aliases(answer: str | None, given: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return build_aliases(((answer,), *given)) if answer is not None and given else given


def _surfaces(row: Fields) -> tuple[str, ...]:
    surfaces = row.texts("surfaces")
    if not set(surfaces) <= set(SURFACES):
        raise BadRow("surfaces must be raw or chat")
    return tuple(dict.fromkeys(surfaces))


def _fits(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and ("target" in row or "target_new" in row)


ERRATA = Schema("errata", _fits, _read)
