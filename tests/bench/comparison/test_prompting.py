"""Edits in front of questions, and the beginning that all such prompts share."""

import pytest

from service.bench.comparison.prompting import AllEditsContender, NearestContender, choose_fitting
from service.bench.comparison.shared_prefix import SharedPrefix
from service.bench.ground.asking import Ask, answer_all, encode_ask
from service.lm.overlay import View, make_view
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from tests.bench.ground.test_scores import make_edit
from tests.builders import make_base

EDITS = [make_edit(number, subject) for number, subject in enumerate(("France", "Spain", "Italy"), 1)]
ASKS = [Ask("Madrid is"), Ask("The capital of Spain is"), Ask("Where lies Rome? In"), Ask("Rome is")]


@pytest.fixture(scope="module")
def view() -> View:
    return make_view(make_base())


def test_prompts_that_begin_alike_are_answered_as_if_each_stood_alone(view: View) -> None:
    prompts = [encode_prompt(view.base, f"The sea is wide.\n{ask.text}") for ask in ASKS]
    shared = SharedPrefix(view)

    together = shared.decode(prompts, 6)
    seconds = shared.seconds
    again = [shared.decode([prompt], 6)[0] for prompt in prompts]

    assert together == again == [decode_greedily(view, None, [prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert seconds > 0.0
    assert shared.seconds == seconds, "what is shared is computed once"


def test_prompts_that_share_more_than_what_is_kept_are_prepared_anew(view: View) -> None:
    shared, longer = SharedPrefix(view), "The sea is wide.\nThe sea is deep.\n"
    shared.decode([encode_prompt(view.base, f"The sea is wide.\n{text}") for text in ("Snow is", "Madrid is")], 2)
    seconds = shared.seconds
    prompts = [encode_prompt(view.base, longer + ask.text) for ask in ASKS]

    answers = shared.decode(prompts, 6)

    assert shared.seconds != seconds
    assert answers == [decode_greedily(view, None, [prompt], max_new_tokens=6)[0] for prompt in prompts]


def test_prompts_that_share_nothing_are_answered_too(view: View) -> None:
    prompts = [encode_prompt(view.base, text)[-3:] for text in ("The sea is wide", "A dog ran home")]

    assert SharedPrefix(view).decode(prompts, 4) == decode_greedily(view, None, prompts, max_new_tokens=4)


def test_all_edits_stand_in_front_of_every_question_in_their_order(view: View) -> None:
    contender = AllEditsContender(view)

    changed = contender.change(Ask("Madrid is"), EDITS)

    assert changed.text.split("\n") == [*(f"The capital of {edit.subject} is Lyon." for edit in EDITS), "Madrid is"]
    assert contender.answer(ASKS, EDITS) == [
        answer_all(view, None, [contender.change(ask, EDITS)])[0].text for ask in ASKS
    ]  # one at a time, without a shared beginning


def test_in_a_chat_all_edits_stand_in_the_first_turn(view: View) -> None:
    changed = AllEditsContender(view).change(Ask("And its capital?", "chat", (("Spain.", "Yes?"),)), EDITS[:1])

    assert changed.turns == (("The capital of France is Lyon.\nSpain.", "Yes?"),)
    assert changed.text == "And its capital?"


def test_the_newest_edits_stand_there_when_the_context_is_full(view: View) -> None:
    many = [make_edit(number, f"Land {number}") for number in range(60)]

    stated = choose_fitting(view.base, "raw", many)

    assert 0 < len(stated) < len(many)
    assert list(stated) == many[-len(stated) :]
    length = len(encode_ask(view.base, AllEditsContender(view).change(Ask("Madrid is"), many)))
    assert 0.5 * view.base.context_length < length < 0.85 * view.base.context_length


def test_the_nearest_edit_alone_stands_before_a_question(view: View) -> None:
    contender = NearestContender(view)

    assert contender.change(Ask("Madrid, Spain, is"), EDITS).text == "The capital of Spain is Lyon.\nMadrid, Spain, is"
    assert contender.change(Ask("Water boils at"), EDITS).text == "Water boils at"
