"""One form for everything that is evaluated: an edit with its probes, wherever it comes from, and the questions it asks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.domain.edit import EditRequest, Probe
from service.domain.errors import Refused

Kind = Literal["reliability", "generality", "locality", "portability"]


@dataclass(frozen=True, kw_only=True)
class EvalProbe:
    """A question beside the edit's own. `pool` says whether neutral prompts were taken from around it; None: not known."""

    prompt: str
    answer: str | None = None
    train: bool = False
    group: str | None = None
    pool: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One edit to be evaluated."""

    id: str
    prompt: str
    target: str
    rephrases: tuple[EvalProbe, ...] = ()
    locality: tuple[EvalProbe, ...] = ()
    portability: tuple[EvalProbe, ...] = ()
    surfaces: tuple[str, ...] = ()  # empty: all that the tokenizer supports
    subject: str | None = None
    relation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question on one surface. `answer` None: whatever the base model answers."""

    record: str
    kind: Kind
    prompt: str
    answer: str | None
    surface: str
    trained: bool = False
    group: str | None = None
    pool: bool | None = None


def record_of(edit: EditRequest, *, id: str) -> Record:
    """An edit of the store, or one that is not stored, as a record."""
    return Record(
        id=id,
        prompt=edit.prompt,
        target=edit.target,
        subject=edit.subject,
        relation=edit.relation,
        surfaces=edit.surfaces,
        rephrases=_of_domain(edit.rephrases),
        locality=_of_domain(edit.locality),
        portability=_of_domain(edit.portability),
    )


def asks_of(record: Record, supported: Sequence[str]) -> Iterator[Ask]:
    """Every question of a record, once on each of its surfaces that the model supports.

    A rephrase without an answer asks for the target. A portability probe without one cannot be judged and asks nothing.
    """
    for surface in [name for name in record.surfaces if name in supported] or supported:
        yield Ask(record=record.id, kind="reliability", prompt=record.prompt, answer=record.target, surface=surface)
        for probe in record.rephrases:
            yield _ask(record, "generality", probe, probe.answer or record.target, surface)
        for probe in record.locality:
            yield _ask(record, "locality", probe, probe.answer, surface)
        for probe in record.portability:
            if probe.answer is not None:
                yield _ask(record, "portability", probe, probe.answer, surface)


def read_records(path: Path) -> list[Record]:
    """Records of a file with one JSON object a line, keys as in `Record`.

    A probe is a string or an object. A benchmark must not teach what it asks, so a probe is never trained unless it says so.
    Raises Refused with the line's number where a line is no record.
    """
    with path.open(encoding="utf-8") as lines:
        return [_parse(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _of_domain(probes: Sequence[Probe]) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=probe.prompt, answer=probe.answer, train=probe.train, group=probe.group) for probe in probes)


def _parse(line: str, number: int) -> Record:
    try:
        fields = json.loads(line)
        return Record(
            id=str(fields.get("id", number)),
            prompt=fields["prompt"],
            target=fields["target"],
            subject=fields.get("subject"),
            relation=fields.get("relation"),
            rephrases=_probes(fields.get("rephrases", ())),
            locality=_probes(fields.get("locality", ())),
            portability=_probes(fields.get("portability", ())),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"line {number} of the records is not an edit with prompt, target and probes") from error


def _probes(given: Sequence[str | Mapping[str, Any]]) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=probe) if isinstance(probe, str) else EvalProbe(**probe) for probe in given)


def _ask(record: Record, kind: Kind, probe: EvalProbe, answer: str | None, surface: str) -> Ask:
    return Ask(
        record=record.id,
        kind=kind,
        prompt=probe.prompt,
        answer=answer,
        surface=surface,
        trained=probe.train,
        group=probe.group,
        pool=probe.pool,
    )
