"""Random beginnings before prompts: made by the base model as MEMIT makes them, the same for all edits."""

import torch

from service.editors.examples import each_asked_row
from service.editors.locft.random_prefixes import of_the_likeliest, sample_beginnings
from service.lm.overlay import EMPTY, make_view
from service.lm.tokenizing import decode_ids
from tests.builders import make_base
from tests.editors.lessons import item, taught_base
from tests.editors.locft.taught import EDITS, fit, says


def beginnings(count: int, seed: int = 0) -> tuple[str, ...]:
    return sample_beginnings(make_view(taught_base()), count, torch.Generator().manual_seed(seed))


def test_five_beginnings_start_with_the_five_words_and_follow_from_the_seed():
    made = beginnings(5)

    starts = ("The", "Therefore", "Because", "I", "You")
    assert all(text.startswith(start[:9]) for text, start in zip(made, starts, strict=True))
    assert all(text.endswith(". ") and "{" not in text and "}" not in text for text in made)
    assert beginnings(5) == made != beginnings(5, seed=1)


def test_each_token_is_drawn_from_the_five_that_the_base_finds_likeliest():
    base = make_base()
    logits = base.model(input_ids=torch.tensor([[0, 50, 60], [0, 70, 80]])).logits[:, -1]
    text = sorted(set(range(logits.shape[1])) - base.control_ids - set(base.eos_ids))

    left = of_the_likeliest(base, logits)

    for row, allowed in zip(logits, left.isfinite(), strict=True):
        best = sorted(text, key=lambda token: -row[token])[:5]
        assert set(allowed.nonzero()[:, 0].tolist()) == set(best)


def test_a_beginning_is_no_longer_than_ten_tokens():
    tokenizer = taught_base().tokenizer

    assert all(len(tokenizer(text.removesuffix(". "), add_special_tokens=False).input_ids) <= 10 for text in beginnings(5))


def test_every_edit_is_learned_behind_the_same_beginnings_and_judged_without():
    base, given = taught_base(), [item("red is", "Z"), item("sky is", "Y")]

    rows = list(each_asked_row(base, given, eos=True, learn_probes=True, beginnings=("Abc. ", "Xyz. ")))

    texts = [decode_ids(base, each.row.prompt_ids) for each in rows if each.item == 0]
    assert texts == ["red is", "Abc. red is", "Xyz. red is"]
    assert [each.literal for each in rows] == [True, False, False] * 2
    assert rows[1].row.target_ids == rows[0].row.target_ids


def test_a_beginning_that_does_not_fit_the_context_is_left_out():
    rows = list(each_asked_row(taught_base(), EDITS[:1], eos=True, learn_probes=True, beginnings=("a" * 124,)))

    assert len(rows) == 1


def test_with_prefixes_an_edit_is_answered_behind_them_too():
    (beginning,) = beginnings(1, seed=1)
    prompt = f"{beginning}red is"
    assert not says(EMPTY, prompt, "Z")

    fitted = fit(EDITS[:1], prefixes=1, preserve_weight=0.0)

    assert fitted.lost == ()
    assert says(fitted.overlay, prompt, "Z")


def test_the_papers_five_are_learned_with_the_paper_preset():
    fitted = fit(EDITS[:2], preset="paper", batch=100, epochs=100, learning_rate=1e-2, prefixes=5)

    made = beginnings(5, seed=1)
    assert fitted.lost == ()
    assert sum(says(fitted.overlay, f"{beginning}red is", "Z") for beginning in made) >= 4
