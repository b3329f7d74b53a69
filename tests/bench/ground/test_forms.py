"""The forms in which the ground asks."""

import pytest

from service.atlas.almanac import wordings
from service.atlas.templates import WORDINGS
from service.bench.ground import forms
from service.bench.ground.forms import GROUND_SURFACES, Form, asked_forms, find_overlap, posted_form

RELATIONS = (*WORDINGS, *wordings.WORDINGS)


def test_no_pattern_is_both_posted_and_asked() -> None:
    assert find_overlap(RELATIONS) == set()


def test_an_overlap_of_patterns_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    posted = posted_form("capital", "cloze")
    monkeypatch.setattr(forms, "asked_forms", lambda relation, surface: [posted])

    assert find_overlap(("capital",)) == {posted.pattern}


@pytest.mark.parametrize("surface", GROUND_SURFACES)
@pytest.mark.parametrize("relation", RELATIONS)
def test_every_relation_can_be_asked_in_four_other_forms(relation: str, surface: forms.GroundSurface) -> None:
    assert len({form.pattern for form in asked_forms(relation, surface)}) >= 4


def test_a_form_puts_the_name_in_its_place_and_a_capital_at_the_start() -> None:
    assert Form("{S} lies in", "cloze").fill("the Gambia").text == "The Gambia lies in"
    assert Form("Where is {s}?", "chat").fill("the Gambia").surface == "chat"
