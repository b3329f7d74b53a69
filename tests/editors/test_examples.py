"""The training rows of items: answers, surfaces, omitted rows, and answers decoded from the base."""

from dataclasses import replace

import pytest
import torch

from service.domain.edit import Probe
from service.domain.errors import TooLong
from service.editors import examples
from service.editors.examples import ItemRow, item_rows, iterate_item_rows, locality_rows, real_prompt_rows
from service.editors.protocol import FitCancelled, FitItem, Hooks
from service.lm.overlay import EMPTY
from service.lm.prompts import encode_row
from service.lm.tokenizing import decode_answer
from tests.builders import make_base
from tests.editors.taught_model import item, taught_base, view_of


def with_rephrases(given: FitItem, *probes: Probe) -> FitItem:
    return replace(given, edit=replace(given.edit, rephrases=probes))


def learned(items: list[FitItem]) -> list[tuple[int, str, str]]:
    """By item, prompts and answers of the rows to learn."""
    base = taught_base()
    asked = item_rows(base, items, eos=False, learn_probes=True)
    return [(each.item, decode_answer(base, each.row.prompt_ids), decode_answer(base, each.row.target_ids)) for each in asked]


def test_a_trained_rephrase_is_learned_with_its_own_answer_if_it_has_one():
    own, other = Probe(prompt="what colour:", answer="Y", train=True), Probe(prompt="which colour:", train=True)

    assert learned([with_rephrases(item("red is", "Z"), own, other)]) == [
        (0, "red is", "Z"),
        (0, "what colour:", "Y"),
        (0, "which colour:", "Z"),
    ]


def test_a_rephrase_with_its_own_short_answer_fits_although_the_target_is_long():
    long = Probe(prompt="b" * 118, answer="a", train=True)

    assert (0, "b" * 118, "a") in learned([with_rephrases(item("sea is", "Z" * 30), long)])


@pytest.mark.parametrize("rephrase", ["b" * 200, "   ", "\ud800"])
def test_an_unreadable_rephrase_is_omitted_and_reported(rephrase):
    omitted: list[str] = []
    given = [item("red is", "Z", rephrases=(rephrase,))]

    found = list(iterate_item_rows(taught_base(), given, eos=True, learn_probes=True, report_omission=omitted.append))

    assert [each.is_literal for each in found] == [True]
    assert omitted == [rephrase]


def test_an_edits_own_prompt_is_never_omitted():
    with pytest.raises(TooLong):
        item_rows(taught_base(), [item("b" * 200, "Z")], eos=True, learn_probes=True)


def test_a_rephrase_that_another_edit_answers_differently_is_omitted():
    given = [item("red is", "Z", rephrases=(" sky  is", "sea is")), item("sky is", "Y"), item("sea is", " Z ")]

    assert learned(given) == [(0, "red is", "Z"), (0, "sea is", "Z"), (1, "sky is", "Y"), (2, "sea is", "Z")]


def test_contradicting_rephrases_of_two_edits_are_both_omitted():
    given = [item("red is", "Z", rephrases=("it is",)), item("sky is", "Y", rephrases=("it is",))]

    assert learned(given) == [(0, "red is", "Z"), (1, "sky is", "Y")]


def test_the_rephrases_of_a_retracted_edit_contradict_nothing():
    retracted = FitItem(item("red is", "Z", rephrases=("it is",)).edit, "A", is_tombstone=True)

    assert (1, "it is", "Y") in learned([retracted, item("sky is", "Y", rephrases=("it is",))])


def test_surfaces_of_a_method_override_those_of_an_edit():
    base, given = make_base(), [item("red is", "Z", rephrases=("what colour:",), surfaces=("chat",))]

    def asked(*surfaces: str) -> list[ItemRow]:
        return list(iterate_item_rows(base, given, eos=True, learn_probes=True, surfaces=surfaces))

    assert [each.row for each in asked("raw")] == [encode_row(base, "red is", "Z"), encode_row(base, "what colour:", "Z")]
    assert asked()[0].row == encode_row(base, "red is", "Z", surface="chat")


def test_too_many_locality_probes_are_sampled_by_seed():
    given = [item("red is", "Z", locality=tuple(f"thing {number} is" for number in range(20)))]

    def kept(seed: int, limit: int | None = 6) -> set[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(seed)
        return {row.ids for row in locality_rows(taught_base(), view_of(EMPTY), given, limit=limit, generator=generator)}

    assert len(kept(0)) == 6
    assert kept(0) == kept(0) != kept(1)
    assert kept(0) <= kept(0, limit=None) == kept(1, limit=20)


def test_no_more_real_prompts_are_checked_than_are_kept(monkeypatch):
    looked: list[str] = []
    monkeypatch.setattr(examples, "make_mention_test", lambda *_, **__: lambda text: bool(looked.append(text)))

    kept = real_prompt_rows(taught_base(), view_of(EMPTY), [], [f"thing {number} is" for number in range(50)], limit=3)

    assert len(looked) == 3 >= len(kept)


def test_decoding_the_answers_to_keep_can_be_cancelled():
    with pytest.raises(FitCancelled):
        real_prompt_rows(taught_base(), view_of(EMPTY), [], ["sky is"], limit=3, hooks=Hooks(is_cancelled=lambda: True))
