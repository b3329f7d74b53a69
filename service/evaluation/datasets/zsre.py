"""ZsRE in the form of MEND, EasyEdit, LocFT and UltraEdit, with and without portability, and MzsRE: the same in two languages."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import check_group, read_locality, read_portability, read_rephrases
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import EvalProbe, Record


def _read(row: Fields, number: int) -> list[Record]:
    return [_read_record(row, f"zsre-{number}")]


def _read_record(row: Fields, id: str) -> Record:
    """The target is `alt`, in UltraEdit's copy `ans`. `answers` are the true answers; `pred` is a model's answer."""
    return Record(
        id=id,
        prompt=row.read_text("src"),
        target=row.read_text("alt" if "alt" in row or "ans" not in row else "ans"),
        subject=row.read_optional("subject"),
        ground_truth=row.read_first_answer("answers", "pred", "target_old"),
        rephrases=read_rephrases(row),
        locality=read_locality(row, group="natural_questions"),
        portability=read_portability(row, group="Reasoning"),
    )


def _read_languages(row: Fields, number: int) -> list[Record]:
    """The edit is in the row's first language, as in ReMaKE's files `en<other>`. A probe's group is its language. The question in
    another language is a rephrase, with the answer in that language."""
    languages = [check_group(name, "the row") for name in row if row.is_object(name)]
    if not languages:
        raise BadRow("no field holds the edit in a language")
    records = [_read_language(row, language, number) for language in languages]
    questions = [
        EvalProbe(prompt=other.prompt, answer=other.target, group=language)
        for language, other in zip(languages[1:], records[1:], strict=True)
    ]
    return [
        replace(
            records[0],
            rephrases=(*questions, *(probe for record in records for probe in record.rephrases)),
            locality=tuple(probe for record in records for probe in record.locality),
            portability=tuple(probe for record in records for probe in record.portability),
        )
    ]


def _read_language(row: Fields, language: str, number: int) -> Record:
    record = _read_record(row.read_object(language), f"mzsre-{number}")
    return replace(
        record,
        rephrases=tuple(replace(probe, answer=probe.answer or record.target, group=language) for probe in record.rephrases),
        locality=tuple(replace(probe, group=language) for probe in record.locality),
        portability=tuple(replace(probe, group=language) for probe in record.portability),
    )


def _is_multilingual(row: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) and "src" in value and "alt" in value for value in row.values())


ZSRE_PORTABILITY = Schema("zsre_portability", lambda row: "src" in row and isinstance(row.get("portability"), dict), _read)
ZSRE = Schema("zsre", has_fields("src", "loc"), _read)
MZSRE = Schema("mzsre", _is_multilingual, _read_languages)
