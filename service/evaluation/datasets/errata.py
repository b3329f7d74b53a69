"""Errata's own form: an edit in the API's names or the field's (`target` or `target_new`, `rephrases` or `rephrase_prompt`)."""

from collections.abc import Mapping
from typing import Any

from service.evaluation.datasets.fields import EMPTY_PROMPT, Fields, build_aliases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import EvalProbe, Record

SURFACES = ("raw", "chat")


def _read(row: Fields, number: int) -> list[Record]:
    target = row.read_text("target_new" if "target_new" in row and "target" not in row else "target")
    rephrases = _probes(row, "rephrases") + tuple(EvalProbe(prompt=prompt) for prompt in row.read_texts("rephrase_prompt"))
    return [
        Record(
            id=row.read_id("id") or f"edit-{number}",
            prompt=row.read_text("prompt"),
            target=target,
            aliases=_aliases(target, row.read_answers("aliases")),
            subject=row.read_optional("subject"),
            relation=row.read_optional("relation"),
            conflict_key=row.read_optional("conflict_key"),
            ground_truth=row.read_first_answer("ground_truth"),
            surfaces=_surfaces(row),
            rephrases=rephrases,
            locality=_probes(row, "locality"),
            portability=_probes(row, "portability"),
            generation=row.read_texts("generation"),
            case=row.read_id("case"),
        )
    ]


def _probes(row: Fields, name: str) -> tuple[EvalProbe, ...]:
    """Probes; each is a prompt or an object. `train` is not read: a loaded probe is never open to training."""
    values = ({"prompt": value} if isinstance(value, str) else value for value in row.read_list(name))
    probes = [_probe(fields) for fields in Fields({name: list(values)}, row.notes).read_objects(name)]
    return tuple(probe for probe in probes if probe is not None)


def _probe(fields: Fields) -> EvalProbe | None:
    prompt = fields.read_optional("prompt")
    if prompt is None:
        fields.notes[EMPTY_PROMPT] += 1
        return None
    answers = fields.read_answers("answer")
    answer = answers[0][0] if answers else None
    return EvalProbe(
        prompt=prompt,
        answer=answer,
        group=fields.read_optional("group"),
        pool=fields.read_flag("pool"),
        aliases=build_aliases(answers) or _aliases(answer, fields.read_answers("aliases")),
    )


def _aliases(answer: str | None, aliases: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return build_aliases(((answer,), *aliases)) if answer is not None and aliases else aliases


def _surfaces(row: Fields) -> tuple[str, ...]:
    surfaces = row.read_texts("surfaces")
    if not set(surfaces) <= set(SURFACES):
        raise BadRow("surfaces must be raw or chat")
    return tuple(dict.fromkeys(surfaces))


def _is_match(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and ("target" in row or "target_new" in row)


ERRATA = Schema("errata", _is_match, _read)
