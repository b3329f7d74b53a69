"""Streams of chosen edits: many edits of few subjects, and one target for six subjects."""

from dataclasses import replace

import pytest
import torch

from service.atlas import weights_path
from service.bench.ground.asking import Ask, BaseAnswers
from service.bench.ground.cases import DONT_KNOW, FOUR_SUBJECTS, ONE_CITY
from service.bench.ground.chosen_edits import choose_edits
from service.bench.ground.facts import are_independent, read_table
from service.bench.ground.judging import says
from service.bench.ground.records import Ground, GroundEdit, GroundProbe
from service.domain.errors import Refused
from service.lm.base import load_base
from service.lm.overlay import make_view
from tests.bench.ground.test_scores import make_edit
from tests.builders import make_base

TABLE = read_table(None)
LANDS = ("France", "Spain", "Italy", "Peru", "Chad", "Nepal", "Kenya", "Japan")


def ground_of(edits: list[GroundEdit]) -> Ground:
    return Ground("a model", "0", (), tuple(edits), ())


@pytest.fixture(scope="module")
def nobody() -> BaseAnswers:
    """A model that knows nothing."""
    return BaseAnswers(make_view(make_base()))


@pytest.mark.parametrize(("case", "target"), [(DONT_KNOW, "I don't know."), (ONE_CITY, "Lisbon")])
def test_six_edits_of_one_relation_get_one_target_in_all_their_wordings(case: str, target: str, nobody: BaseAnswers) -> None:
    others = [replace(make_edit(20 + number, name), relation="continent") for number, name in enumerate(LANDS[:3])]
    ground = ground_of([*others, *(make_edit(number, name) for number, name in enumerate(LANDS))])

    chosen = choose_edits(case, ground, nobody, TABLE, "cloze", "development")

    assert [edit.subject for edit in chosen] == list(LANDS[:6])
    assert {edit.relation for edit in chosen} == {"capital"}
    assert {edit.target for edit in chosen} == {probe.answer for edit in chosen for probe in edit.wordings} == {target}


def test_an_edit_whose_answer_is_the_target_and_a_wording_that_tells_it_are_left_out(nobody: BaseAnswers) -> None:
    telling = GroundProbe("other cue", Ask("Is it Lisbon? The capital is"), "Lyon", 0.9, "capital", "France")
    edits = [make_edit(number, name) for number, name in enumerate(LANDS)]
    edits[0] = replace(edits[0], wordings=(*edits[0].wordings, telling))
    edits[1] = replace(edits[1], truth="Lisbon")

    chosen = choose_edits(ONE_CITY, ground_of(edits), nobody, TABLE, "cloze", "development")

    assert [edit.subject for edit in chosen] == [LANDS[0], *LANDS[2:7]]
    assert telling.ask not in {probe.ask for probe in chosen[0].wordings}


def test_a_ground_with_too_few_edits_of_a_relation_or_known_facts_is_refused(nobody: BaseAnswers) -> None:
    ground = ground_of([make_edit(number, name) for number, name in enumerate(LANDS[:5])])

    with pytest.raises(Refused, match="no relation with 6 edits"):
        choose_edits(DONT_KNOW, ground, nobody, TABLE, "cloze", "development")
    with pytest.raises(Refused, match="too few facts about 4 subjects"):
        choose_edits(FOUR_SUBJECTS, ground, nobody, TABLE, "cloze", "development")


def test_edits_of_four_subjects_leave_other_known_facts_of_each_that_depend_on_none() -> None:
    torch.set_num_threads(1)
    answers = BaseAnswers(make_view(load_base(weights_path(), dtype="float32")))
    ground = ground_of([make_edit(number, name) for number, name in enumerate(LANDS[:6])])

    chosen = choose_edits(FOUR_SUBJECTS, ground, answers, TABLE, "cloze", "development")

    subjects = {edit.subject for edit in chosen}
    assert len(subjects) == 4
    assert len({(edit.subject, edit.relation) for edit in chosen}) == len(chosen) >= 16
    assert [edit.subject for edit in chosen[:4]] == list(dict.fromkeys(edit.subject for edit in chosen))
    for edit in chosen:
        assert not says(edit.target, edit.truth)
    for subject in subjects:
        edited = {edit.relation for edit in chosen if edit.subject == subject}
        others = {probe.relation for edit in chosen if edit.subject == subject for probe in edit.locality}
        assert len(others) >= 2
        assert all(are_independent(one, other) and one != other for one in edited for other in others)
