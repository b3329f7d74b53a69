from collections import Counter
from random import Random

from service.atlas.skills import HELD_OUT_PER_SKILL, held_out_items, is_held_out, train_item
from service.atlas.training.corpus import atlas_facts, group_rows


def test_held_out_items_are_fixed_and_equally_many_of_each_skill():
    counts = Counter(item.skill for item in held_out_items())

    assert set(counts.values()) == {HELD_OUT_PER_SKILL}
    assert len({item.prompt for item in held_out_items()}) == len(held_out_items())


def test_no_held_out_item_is_ever_drawn_for_training():
    rng = Random(0)

    assert not any(is_held_out(train_item(rng)) for _ in range(5000))


def test_no_held_out_prompt_is_in_the_training_text():
    held_out = {item.prompt for item in held_out_items()}

    text = {row.prompt for group in range(20) for row in group_rows(atlas_facts(), seed=0, group=group)}

    assert not held_out & text


def test_answers_follow_from_their_prompts():
    rng = Random(0)

    for item in (train_item(rng) for _ in range(500)):
        if item.skill == "adding":
            left, _, right, _ = item.prompt.split()
            assert int(item.answer) == int(left) + int(right)
        if item.skill == "sorting":
            assert item.answer.split() == sorted(item.answer.split())
