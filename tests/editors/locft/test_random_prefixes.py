"""Random prefixes of prompts: sampled from the base model as in MEMIT, the same for all edits."""

import torch

from service.editors.examples import iterate_item_rows
from service.editors.locft.random_prefixes import keep_likeliest, sample_prefixes
from service.lm.overlay import EMPTY, make_view
from service.lm.tokenizing import decode_ids
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, fit, says
from tests.editors.taught_model import item, taught_base


def prefixes(count: int, seed: int = 0) -> tuple[str, ...]:
    return sample_prefixes(make_view(taught_base()), count, torch.Generator().manual_seed(seed))


def test_five_prefixes_start_with_the_five_words_and_follow_from_the_seed():
    sampled = prefixes(5)

    starts = ("The", "Therefore", "Because", "I", "You")
    assert all(text.startswith(start[:9]) for text, start in zip(sampled, starts, strict=True))
    assert all(text.endswith(". ") and "{" not in text and "}" not in text for text in sampled)
    assert prefixes(5) == sampled != prefixes(5, seed=1)


def test_each_prefix_token_is_drawn_from_the_bases_five_likeliest():
    base = make_base()
    logits = base.model(input_ids=torch.tensor([[0, 50, 60], [0, 70, 80]])).logits[:, -1]
    text = sorted(set(range(logits.shape[1])) - base.control_ids - set(base.eos_ids))

    left = keep_likeliest(base, logits)

    for row, allowed in zip(logits, left.isfinite(), strict=True):
        best = sorted(text, key=lambda token: -row[token])[:5]
        assert set(allowed.nonzero()[:, 0].tolist()) == set(best)


def test_a_prefix_has_at_most_ten_tokens():
    tokenizer = taught_base().tokenizer

    assert all(len(tokenizer(text.removesuffix(". "), add_special_tokens=False).input_ids) <= 10 for text in prefixes(5))


def test_every_edit_is_learned_after_the_same_prefixes_and_judged_without():
    base, given = taught_base(), [item("red is", "Z"), item("sky is", "Y")]

    rows = list(iterate_item_rows(base, given, eos=True, learn_probes=True, prefixes=("Abc. ", "Xyz. ")))

    texts = [decode_ids(base, each.row.prompt_ids) for each in rows if each.item == 0]
    assert texts == ["red is", "Abc. red is", "Xyz. red is"]
    assert [each.is_literal for each in rows] == [True, False, False] * 2
    assert rows[1].row.target_ids == rows[0].row.target_ids


def test_a_prefix_that_does_not_fit_the_context_is_omitted():
    rows = list(iterate_item_rows(taught_base(), EDITS[:1], eos=True, learn_probes=True, prefixes=("a" * 124,)))

    assert len(rows) == 1


def test_with_prefixes_an_edit_is_answered_after_them_too():
    (prefix,) = prefixes(1, seed=1)
    prompt = f"{prefix}red is"
    assert not says(EMPTY, prompt, "Z")

    fitted = fit(EDITS[:1], prefixes=1, preserve_weight=0.0)

    assert fitted.lost == ()
    assert says(fitted.overlay, prompt, "Z")


def test_the_papers_five_are_learned_with_the_paper_preset():
    fitted = fit(EDITS[:2], preset="paper", batch=100, epochs=100, learning_rate=1e-2, prefixes=5)

    sampled = prefixes(5, seed=1)
    assert fitted.lost == ()
    assert sum(says(fitted.overlay, f"{prefix}red is", "Z") for prefix in sampled) >= 4
