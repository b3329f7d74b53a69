"""Records: one form for every edit that is evaluated, with its probes and questions, whatever its source."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from service.domain.edit import EditRequest, Probe
from service.domain.errors import Refused

Kind = Literal["reliability", "generality", "locality", "portability"]
PROBES = ("rephrases", "locality", "portability")


@dataclass(frozen=True, kw_only=True)
class EvalProbe:
    """A probe of an edit. `pool` says whether neutral prompts may be about the probe's fact; None: unknown.

    `aliases` are all right answers, each with its spellings, as KnowEdit lists them; `answer` is the first spelling of the first.
    """

    prompt: str
    answer: str | None = None
    train: bool = False
    group: str | None = None
    pool: bool | None = None
    aliases: tuple[tuple[str, ...], ...] = ()

    def list_answers(self, default: str | None = None) -> tuple[str, ...]:
        """Every spelling of every right answer, `answer` first. `default` replaces a missing `answer`."""
        first = self.answer or default
        return tuple(dict.fromkeys([*([first] if first is not None else []), *_flat(self.aliases)]))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One edit to evaluate. Its texts are exactly those of its source."""

    id: str
    prompt: str
    target: str
    rephrases: tuple[EvalProbe, ...] = ()
    locality: tuple[EvalProbe, ...] = ()
    portability: tuple[EvalProbe, ...] = ()
    surfaces: tuple[str, ...] = ()  # empty: all that the tokenizer supports
    subject: str | None = None
    relation: str | None = None
    conflict_key: str | None = None
    ground_truth: str | None = None  # the answer that was true before: p(true) against p(new)
    aliases: tuple[tuple[str, ...], ...] = ()  # other spellings of the target
    generation: tuple[str, ...] = ()  # prompts to continue, for fluency
    wanted: tuple[str, ...] = ()  # ConvSent: replies of the wanted sentiment to the first prompt of `generation`
    opposite: tuple[str, ...] = ()  # and of the opposite sentiment
    case: str | None = None  # edits of one case belong together (MQuAKE)

    def list_answers(self) -> tuple[str, ...]:
        """Every spelling of the target, the target itself first."""
        return tuple(dict.fromkeys([self.target, *_flat(self.aliases)]))


@dataclass(frozen=True, kw_only=True)
class EvalQuestion:
    """One question on one surface. `answer` None: the base model's own answer is expected."""

    record: str
    kind: Kind
    prompt: str
    answer: str | None
    surface: str
    trained: bool = False
    group: str | None = None
    pool: bool | None = None
    answers: tuple[str, ...] = ()  # all right answers, `answer` first


def build_record(edit: EditRequest, *, id: str) -> Record:
    """A stored or new edit as a record."""
    return Record(
        id=id,
        prompt=edit.prompt,
        target=edit.target,
        subject=edit.subject,
        relation=edit.relation,
        conflict_key=edit.conflict_key,
        ground_truth=edit.ground_truth,
        surfaces=edit.surfaces,
        rephrases=_to_eval_probes(edit.rephrases),
        locality=_to_eval_probes(edit.locality),
        portability=_to_eval_probes(edit.portability),
    )


def to_edit_request(record: Record) -> EditRequest:
    """The edit request of a record. No probe is open to training: a benchmark must not teach its questions."""
    return EditRequest(
        prompt=record.prompt,
        target=record.target,
        subject=record.subject,
        relation=record.relation,
        conflict_key=record.conflict_key,
        ground_truth=record.ground_truth,
        surfaces=record.surfaces,
        rephrases=_to_untrained_probes(record.rephrases),
        locality=_to_untrained_probes(record.locality),
        portability=_to_untrained_probes(record.portability),
    )


def to_json(record: Record) -> dict[str, Any]:
    """A record as JSON, without fields at their defaults. `from_json` reads it back."""
    return _drop_defaults(asdict(record))


def from_json(fields: Mapping[str, Any]) -> Record:
    """The record that `to_json` wrote. Users' files are read by `datasets`, not here."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in fields.items()}
    values |= {kind: tuple(_parse_probe(probe) for probe in fields.get(kind, ())) for kind in PROBES}
    return Record(**values | {"aliases": _to_alias_tuples(fields.get("aliases", ()))})


def list_questions(record: Record, supported: Sequence[str]) -> Iterator[EvalQuestion]:
    """Every question of a record, once on each of its surfaces that the model supports.

    A rephrase without an answer asks for the target. A portability probe without an answer cannot be scored and is no question.
    """
    for surface in [name for name in record.surfaces if name in supported] or supported:
        yield EvalQuestion(
            record=record.id,
            kind="reliability",
            prompt=record.prompt,
            answer=record.target,
            surface=surface,
            answers=record.list_answers(),
        )
        for probe in record.rephrases:
            default = record.list_answers() if probe.answer is None else ()
            yield _build_question(record, "generality", probe, surface, (*default, *probe.list_answers()))
        for probe in record.locality:
            yield _build_question(record, "locality", probe, surface, probe.list_answers())
        for probe in record.portability:
            if probe.answer is not None:
                yield _build_question(record, "portability", probe, surface, probe.list_answers())


def read_records(path: Path) -> list[Record]:
    """The records of a file with one JSON object a line, keys as in `Record`.

    A probe is a string or an object. It is open to training only with `train`: a benchmark must not teach its questions.
    Raises Refused with the line's number for a line that is no record.
    """
    with path.open(encoding="utf-8") as lines:
        return [_parse_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _flat(aliases: Sequence[Sequence[str]]) -> list[str]:
    return [spelling for answer in aliases for spelling in answer]


def _to_eval_probes(probes: Sequence[Probe]) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=probe.prompt, answer=probe.answer, train=probe.train, group=probe.group) for probe in probes)


def _to_untrained_probes(probes: Sequence[EvalProbe]) -> tuple[Probe, ...]:
    return tuple(Probe(prompt=probe.prompt, answer=probe.answer, train=False, group=probe.group) for probe in probes)


def _drop_defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: value for name, value in fields.items() if value not in (None, ()) and (name, value) != ("train", False)}
    return {name: [_drop_defaults(probe) for probe in value] if name in PROBES else value for name, value in changed.items()}


def _parse_probe(fields: Mapping[str, Any]) -> EvalProbe:
    return EvalProbe(**{**fields, "aliases": _to_alias_tuples(fields.get("aliases", ()))})


def _to_alias_tuples(aliases: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(answer) for answer in aliases)


def _parse_line(line: str, number: int) -> Record:
    try:
        fields = json.loads(line)
        return Record(
            id=str(fields.get("id", number)),
            prompt=fields["prompt"],
            target=fields["target"],
            subject=fields.get("subject"),
            relation=fields.get("relation"),
            ground_truth=fields.get("ground_truth"),
            rephrases=_parse_probes(fields.get("rephrases", ())),
            locality=_parse_probes(fields.get("locality", ())),
            portability=_parse_probes(fields.get("portability", ())),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"line {number} of the records is not an edit with prompt, target and probes") from error


def _parse_probes(probes: Sequence[str | Mapping[str, Any]]) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=probe) if isinstance(probe, str) else EvalProbe(**probe) for probe in probes)


def _build_question(record: Record, kind: Kind, probe: EvalProbe, surface: str, answers: tuple[str, ...]) -> EvalQuestion:
    return EvalQuestion(
        record=record.id,
        kind=kind,
        prompt=probe.prompt,
        answer=answers[0] if answers else None,
        surface=surface,
        trained=probe.train,
        group=probe.group,
        pool=probe.pool,
        answers=answers,
    )
