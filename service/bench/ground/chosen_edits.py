"""Chosen sets of edits: many edits of four subjects, and six edits of one relation that get one target."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.bench.ground import cases
from service.bench.ground.asking import BaseAnswers
from service.bench.ground.facts import FactTable, answer_of, name_in_text
from service.bench.ground.forms import GroundSurface, posted_form
from service.bench.ground.generator import draw_target
from service.bench.ground.judging import says
from service.bench.ground.known import FormAsked, KnownFact, find_known
from service.bench.ground.probes import is_dependent
from service.bench.ground.records import Ground, GroundEdit, GroundProbe
from service.domain.errors import Refused

SUBJECTS, OF_A_SUBJECT = 4, 5  # twenty edits
LEFT = 2  # other known facts of a subject that stay as they are, at least
ALIKE = 6  # edits with one target
UNKNOWN = "I don't know."
CITY = "Lisbon"
CITY_RELATIONS = ("capital", "state_capital", "birthplace", "death_place", "burial_place")


def choose_edits(
    case: str, ground: Ground, answers: BaseAnswers, table: FactTable, surface: GroundSurface, half: str
) -> list[GroundEdit]:
    """The edits of a case, on a surface and of a half. Raises Refused if the ground has too few for it."""
    edits = ground.select(surface, half, len(ground.edits))
    if case == cases.FOUR_SUBJECTS:
        return _on_four_subjects(edits, answers, table, surface, half)
    if case == cases.DONT_KNOW:
        return _with_target(edits, UNKNOWN, ())
    assert case == cases.ONE_CITY
    return _with_target(edits, CITY, CITY_RELATIONS)


def _with_target(edits: Sequence[GroundEdit], target: str, first: Sequence[str]) -> list[GroundEdit]:
    """Six edits of one relation with another target: of the relations `first` if one has six, else of that with the most edits.

    Edits whose own answer is the target are left out, and wordings that tell it.
    """
    possible = [edit for edit in edits if not says(edit.truth, target)]
    counts = {relation: sum(edit.relation == relation for edit in possible) for relation in {edit.relation for edit in possible}}
    order = sorted(counts, key=lambda name: (counts[name] >= ALIKE and name in first, counts[name], name), reverse=True)
    chosen = [edit for edit in possible if edit.relation == order[0]][:ALIKE] if order else []
    if len(chosen) < ALIKE:
        raise Refused(f"the ground has no relation with {ALIKE} edits of this half and surface", field="case")
    return [_give_target(edit, target) for edit in chosen]


def _give_target(edit: GroundEdit, target: str) -> GroundEdit:
    told = [probe for probe in edit.wordings if target.casefold() in probe.ask.text.casefold()]
    wordings = tuple(replace(probe, answer=target) for probe in edit.wordings if probe not in told)
    return replace(edit, target=target, wordings=wordings)


def _on_four_subjects(
    edits: Sequence[GroundEdit], answers: BaseAnswers, table: FactTable, surface: GroundSurface, half: str
) -> list[GroundEdit]:
    """Five edits of each of the four subjects of which the model knows most, and their other known facts as locality.

    Subjects are those of the ground's edits, in their order. Other facts depend on no edited one. Fewer than five facts of a
    subject are edited where the model knows too few for at least two others to stay.
    """
    known = _find_known(answers, table, dict.fromkeys(edit.subject for edit in edits), surface)
    split = {subject: _split(items) for subject, items in known.items()}
    subjects = sorted(split, key=lambda subject: -len(split[subject][0]))[:SUBJECTS]
    if len(subjects) < SUBJECTS or not all(split[subject][0] for subject in subjects):
        raise Refused(f"the model knows too few facts about {SUBJECTS} subjects of the ground", field="case")
    chosen: list[GroundEdit] = []
    for place in range(OF_A_SUBJECT):  # one edit of each subject after another
        for subject in subjects:
            edited, others = split[subject]
            target = draw_target(table, edited[place]) if place < len(edited) else None
            if target is not None:
                stays = others if place == 0 else ()
                chosen.append(_make_edit(edited[place], target, stays, half, len(chosen)))
    return chosen


def _find_known(
    answers: BaseAnswers, table: FactTable, subjects: Iterable[str], surface: GroundSurface
) -> dict[str, list[KnownFact]]:
    """The facts about each subject that the model knows, in the form in which edits are posted."""
    forms = [FormAsked(fact, posted_form(fact.relation, surface)) for name in subjects for fact in table.by_subject(name)]
    known: dict[str, list[KnownFact]] = {}
    for item in find_known(answers, forms):
        known.setdefault(item.fact.subject, []).append(item)
    return known


def _split(items: Sequence[KnownFact]) -> tuple[list[KnownFact], list[KnownFact]]:
    """The facts of a subject to edit, and those that then stay: none of these depends on an edited one."""

    def staying(edited: Sequence[KnownFact]) -> list[KnownFact]:
        return [item for item in items if item not in edited and not any(is_dependent(other.fact, item.fact) for other in edited)]

    edited: list[KnownFact] = []
    for item in items:
        if len(edited) < OF_A_SUBJECT and len(staying([*edited, item])) >= LEFT:
            edited.append(item)
    return edited, staying(edited)


def _make_edit(item: KnownFact, target: str, stays: Sequence[KnownFact], half: str, number: int) -> GroundEdit:
    """An edit of a known fact, without wordings. Every other one names its subject."""
    return GroundEdit(
        id=f"{item.form.surface}-{half}-subjects-{number:02d}",
        half=half,
        surface=item.form.surface,
        relation=item.fact.relation,
        subject=item.fact.subject,
        ask=item.form.fill(name_in_text(item.fact)),
        target=target,
        truth=answer_of(item.fact),
        confidence=item.confidence,
        names_subject=number // SUBJECTS % 2 == 0,
        wordings=(),
        locality=tuple(_stay(other) for other in stays),
    )


def _stay(item: KnownFact) -> GroundProbe:
    ask = item.form.fill(name_in_text(item.fact))
    return GroundProbe("same subject", ask, answer_of(item.fact), item.confidence, item.fact.relation, item.fact.subject)
