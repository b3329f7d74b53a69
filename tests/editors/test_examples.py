"""What an item is fitted on: with which answers, on which surfaces, what is left out, and what is asked of the base for it."""

from dataclasses import replace

import pytest
import torch

from service.domain.edit import Probe
from service.domain.errors import TooLong
from service.editors import examples
from service.editors.examples import AskedRow, asked_rows, each_asked_row, kept_prompts, kept_rows
from service.editors.protocol import FitCancelled, FitItem, Hooks
from service.lm.overlay import EMPTY
from service.lm.prompts import encode_row
from service.lm.tokenizing import decode_answer
from tests.builders import make_base
from tests.editors.lessons import item, taught_base, view_of


def with_rephrases(given: FitItem, *probes: Probe) -> FitItem:
    return replace(given, edit=replace(given.edit, rephrases=probes))


def learned(items: list[FitItem]) -> list[tuple[int, str, str]]:
    """By item, prompts and answers of the rows to learn."""
    base = taught_base()
    asked = asked_rows(base, items, eos=False, learn_probes=True)
    return [(each.item, decode_answer(base, each.row.prompt_ids), decode_answer(base, each.row.target_ids)) for each in asked]


def test_a_trained_rephrase_is_asked_for_its_own_answer_if_it_has_one():
    own, other = Probe(prompt="what colour:", answer="Y", train=True), Probe(prompt="which colour:", train=True)

    assert learned([with_rephrases(item("red is", "Z"), own, other)]) == [
        (0, "red is", "Z"),
        (0, "what colour:", "Y"),
        (0, "which colour:", "Z"),
    ]


def test_a_rephrase_that_fits_with_its_own_short_answer_alone_is_asked_with_that():
    long = Probe(prompt="b" * 118, answer="a", train=True)

    assert (0, "b" * 118, "a") in learned([with_rephrases(item("sea is", "Z" * 30), long)])


@pytest.mark.parametrize("rephrase", ["b" * 200, "   ", "\ud800"])
def test_a_rephrase_that_the_model_cannot_read_is_left_out_and_named(rephrase):
    left_out: list[str] = []
    given = [item("red is", "Z", rephrases=(rephrase,))]

    found = list(each_asked_row(taught_base(), given, eos=True, learn_probes=True, left_out=left_out.append))

    assert [each.literal for each in found] == [True]
    assert left_out == [rephrase]


def test_an_edits_own_prompt_that_does_not_fit_is_never_left_out():
    with pytest.raises(TooLong):
        asked_rows(taught_base(), [item("b" * 200, "Z")], eos=True, learn_probes=True)


def test_a_rephrase_that_another_edit_answers_otherwise_is_left_to_that_edit():
    given = [item("red is", "Z", rephrases=(" sky  is", "sea is")), item("sky is", "Y"), item("sea is", " Z ")]

    assert learned(given) == [(0, "red is", "Z"), (0, "sea is", "Z"), (1, "sky is", "Y"), (2, "sea is", "Z")]


def test_rephrases_of_two_edits_that_contradict_each_other_are_both_left_out():
    given = [item("red is", "Z", rephrases=("it is",)), item("sky is", "Y", rephrases=("it is",))]

    assert learned(given) == [(0, "red is", "Z"), (1, "sky is", "Y")]


def test_what_the_rephrases_of_a_retracted_edit_say_contradicts_nothing():
    retracted = FitItem(item("red is", "Z", rephrases=("it is",)).edit, "A", is_tombstone=True)

    assert (1, "it is", "Y") in learned([retracted, item("sky is", "Y", rephrases=("it is",))])


def test_surfaces_that_a_method_names_stand_before_an_edits_own():
    base, given = make_base(), [item("red is", "Z", rephrases=("what colour:",), surfaces=("chat",))]

    def asked(*surfaces: str) -> list[AskedRow]:
        return list(each_asked_row(base, given, eos=True, learn_probes=True, surfaces=surfaces))

    assert [each.row for each in asked("raw")] == [encode_row(base, "red is", "Z"), encode_row(base, "what colour:", "Z")]
    assert asked()[0].row == encode_row(base, "red is", "Z", surface="chat")


def test_of_too_many_locality_probes_as_many_as_are_wanted_are_drawn_and_the_same_for_a_seed():
    given = [item("red is", "Z", locality=tuple(f"thing {number} is" for number in range(20)))]

    def kept(seed: int, limit: int | None = 6) -> set[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(seed)
        return {row.ids for row in kept_rows(taught_base(), view_of(EMPTY), given, limit=limit, generator=generator)}

    assert len(kept(0)) == 6
    assert kept(0) == kept(0) != kept(1)
    assert kept(0) <= kept(0, limit=None) == kept(1, limit=20)


def test_of_many_real_prompts_no_more_are_looked_at_than_are_kept(monkeypatch):
    looked: list[str] = []
    monkeypatch.setattr(examples, "speaks_against", lambda *_, **__: lambda text: bool(looked.append(text)))

    kept = kept_prompts(taught_base(), view_of(EMPTY), [], [f"thing {number} is" for number in range(50)], limit=3)

    assert len(looked) == 3 >= len(kept)


def test_asking_the_base_what_must_stay_can_be_cancelled():
    with pytest.raises(FitCancelled):
        kept_prompts(taught_base(), view_of(EMPTY), [], ["sky is"], limit=3, hooks=Hooks(is_cancelled=lambda: True))
