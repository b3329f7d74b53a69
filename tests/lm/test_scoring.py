"""Scores and decoding, against step-by-step forward passes without cache or padding and against transformers' own generation."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_logits, make_view
from service.lm.prompts import collate, row_from_ids
from service.lm.scoring import (
    decode_greedily,
    gate_means,
    greedy_matches,
    row_losses,
    sample_behind,
    sample_sentences,
    token_accuracy,
)
from tests.builders import FAMILIES, make_adapter, make_base, make_rows

PROMPTS = [(6, 1), (1, 1), (12, 1), (2, 1), (3, 1)]
STATES = 1e-5  # how far cached, padded logits may be from uncached, unpadded ones in fp32; measured: below 4e-6


def prompts(base: Base) -> list[tuple[int, ...]]:
    return [row.prompt_ids for row in make_rows(base, PROMPTS)]


def step_by_step(view: View, adapter: Adapter, prompt: Sequence[int], limit: int) -> tuple[int, ...]:
    """Greedy decoding as it is defined: the whole sequence again for each token, alone, without cache."""
    ids: list[int] = list(prompt)
    while len(ids) < len(prompt) + limit:
        row = row_from_ids(view.base, ids, len(prompt))
        ids.append(int(compute_logits(view, collate(view.base, [row], last=adapter.last), adapter.interventions)[0, -1].argmax()))
        if ids[-1] in view.base.eos_ids:
            break
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_cached_batched_decoding_is_the_unpadded_forward_pass(family: str) -> None:
    base, adapter = make_base(family), make_adapter((0, 2))
    view = make_view(base)
    rows = make_rows(base, [(prompt, 9) for prompt, _ in PROMPTS])

    decoding = Decoding(view, [adapter] * len(rows), [row.prompt_ids for row in rows])
    seen = [decoding.logits]
    for step in range(8):
        decoding.feed(torch.tensor([row.target_ids[step] for row in rows]))
        seen.append(decoding.logits)

    for number, row in enumerate(rows):
        alone = compute_logits(view, collate(base, [row]), adapter.interventions)[0, row.prompt_length - 1 : -1]
        torch.testing.assert_close(torch.stack([step[number] for step in seen]), alone, rtol=0, atol=STATES)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_greedy_answers_are_those_of_decoding_step_by_step(family: str) -> None:
    base, adapter = make_base(family), make_adapter()
    view = make_view(base)
    assert decode_greedily(view, adapter, prompts(base), max_new_tokens=10) == [
        step_by_step(view, adapter, prompt, 10) for prompt in prompts(base)
    ]


def test_without_an_adapter_greedy_is_transformers_own_greedy() -> None:
    base = make_base()
    for prompt, answer in zip(
        prompts(base), decode_greedily(make_view(base), None, prompts(base), max_new_tokens=8), strict=True
    ):
        whole = base.model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=2)
        assert tuple(whole[0, len(prompt) :].tolist()) == answer


def test_rows_that_leave_or_join_change_no_other_row() -> None:
    base, adapter = make_base("mistral"), make_adapter()
    view, wanted = make_view(base), [step_by_step(make_view(base), adapter, prompt, 6) for prompt in prompts(base)]
    assert all(len(answer) == 6 for answer in wanted)
    first, second = prompts(base)[:2], prompts(base)[2:]

    decoding = Decoding(view, [adapter] * 2, first)
    for step in range(3):
        decoding.feed(torch.tensor([answer[step] for answer in wanted[:2]]))
    decoding.join(Decoding(view, [adapter] * 3, second))
    got = decoding.logits.argmax(-1).tolist()
    decoding.feed(torch.tensor(got))
    decoding.keep([3, 1])

    assert got == [wanted[0][3], wanted[1][3], wanted[2][0], wanted[3][0], wanted[4][0]]
    assert decoding.logits.argmax(-1).tolist() == [wanted[3][1], wanted[1][4]]
    assert len(decoding) == 2


def test_greedy_stops_at_the_end_of_the_context() -> None:
    base = make_base()
    prompt = make_rows(base, [(base.context_length - 2, 1)])[0].prompt_ids
    assert len(decode_greedily(make_view(base), None, [prompt], max_new_tokens=50, stop_eos=False)[0]) == 2


def test_a_row_matches_exactly_when_greedy_decoding_gives_its_target() -> None:
    base, adapter = make_base(), make_adapter()
    view = make_view(base)
    starts = prompts(base)
    answers = decode_greedily(view, adapter, starts, max_new_tokens=6)
    right = [row_from_ids(base, (*p, *a), len(p)) for p, a in zip(starts, answers, strict=True)]
    wrong = [row_from_ids(base, (*p, *a[:-1], a[-1] ^ 1), len(p)) for p, a in zip(starts, answers, strict=True)]

    assert greedy_matches(view, right + wrong, adapter) == [True] * 5 + [False] * 5
    assert token_accuracy(view, wrong, adapter) == pytest.approx([5 / 6] * 5)
    assert not any(greedy_matches(view, right, None))


def test_a_rows_loss_is_the_mean_over_its_target_tokens_alone() -> None:
    base, adapter = make_base(), make_adapter()
    view, rows = make_view(base), make_rows(base, [(6, 3), (2, 5), (1, 1)])

    got = row_losses(view, rows, adapter)

    want = []
    for row in rows:
        out = compute_logits(view, collate(base, [row]), adapter.interventions)[0]
        want.append(cross_entropy(out[row.prompt_length - 1 : -1], torch.tensor(row.target_ids)))
    torch.testing.assert_close(got, torch.stack(want).detach(), rtol=0, atol=1e-5)


def test_scores_do_not_depend_on_how_many_rows_are_asked_at_once() -> None:
    base = make_base()
    view, rows = make_view(base), make_rows(base, [(1 + n % 7, 1 + n % 4) for n in range(70)])
    together = row_losses(view, rows, None)
    torch.testing.assert_close(together, torch.cat([row_losses(view, [row], None) for row in rows]), rtol=0, atol=1e-5)


def test_sampled_sentences_start_at_bos_end_at_eos_or_the_limit_and_repeat_for_a_seed() -> None:
    base = make_base()

    def sample(seed: int) -> list[tuple[int, ...]]:
        parts = sample_sentences(base, 12, torch.Generator().manual_seed(seed), max_tokens=30, batch=5)
        return [sentence for part in parts for sentence in part]

    sentences = sample(3)

    assert len(sentences) == 12 and len(set(sentences)) > 6
    assert all(s[0] == base.start_id and len(s) <= 30 and (len(s) == 30 or s[-1] == 1) for s in sentences)
    assert all(1 not in s[:-1] for s in sentences)
    assert sentences == sample(3)
    assert sentences != sample(4)


def test_sampling_may_go_on_from_the_state_of_the_generator_and_gives_way() -> None:
    base, gave = make_base(), []
    whole = list(sample_sentences(base, 9, torch.Generator().manual_seed(3), max_tokens=8, batch=3))
    generator = torch.Generator().manual_seed(3)
    (first,) = sample_sentences(base, 3, generator, max_tokens=8, batch=3)
    state = generator.get_state()

    later = torch.Generator()
    later.set_state(state)
    rest = list(sample_sentences(base, 6, later, max_tokens=8, batch=3, yield_to_answers=lambda: gave.append(True)))

    assert [first, *rest] == whole
    assert len(gave) >= 2


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_behind_one_prompt_are_those_of_whole_forward_passes(temperature: float) -> None:
    base = make_base()
    view, (prompt, *_) = make_view(base), prompts(base)

    samples = sample_behind(view, prompt, 3, torch.Generator().manual_seed(5), max_new_tokens=6, temperature=temperature)

    points = torch.Generator().manual_seed(5)
    expected: list[list[int]] = [[], [], []]
    for _ in range(6):
        for text, point in zip(expected, torch.rand(3, generator=points).tolist(), strict=True):
            if text and text[-1] in base.eos_ids:
                continue
            batch = collate(base, [row_from_ids(base, (*prompt, *text), len(prompt))])
            shares = torch.softmax(compute_logits(view, batch, None)[0, -1].double() / temperature, -1)
            text.append(int((shares.cumsum(-1) > point).nonzero()[0, 0]))
    assert samples == [tuple(text) for text in expected]


def test_a_sample_ends_where_it_is_over_and_the_others_go_on() -> None:
    base = make_base()
    view, (prompt, *_) = make_view(base), prompts(base)

    def sample(**given: Any) -> list[tuple[int, ...]]:
        return sample_behind(view, prompt, 4, torch.Generator().manual_seed(5), max_new_tokens=8, temperature=1.0, **given)

    whole = sample()
    second = whole[0][1]

    assert sample(is_over=lambda ids: ids[-1] == second) == [
        text[: text.index(second) + 1] if second in text else text for text in whole
    ]


def test_sampled_sentences_follow_the_models_distribution() -> None:
    """First tokens of 3000 sentences against the softmax at BOS: a chi-square per degree of freedom near 1."""
    base = make_base()
    shares = torch.softmax(compute_logits(make_view(base), collate(base, [row_from_ids(base, (0,), 1)]))[0, -1].double(), -1)
    count = 3000

    parts = sample_sentences(base, count, torch.Generator().manual_seed(0), max_tokens=2, batch=1000)
    firsts = torch.tensor([s[1] for part in parts for s in part])

    expected = shares * count
    common = expected > 5
    seen = torch.bincount(firsts, minlength=len(shares)).double()
    chi_square = ((seen - expected)[common] ** 2 / expected[common]).sum() / common.sum()
    assert 0.7 < float(chi_square) < 1.35


def test_gate_means_are_means_over_rows_of_means_over_intervened_positions() -> None:
    base, adapter = make_base(), make_adapter()
    view, rows = make_view(base), make_rows(base, [(6, 3), (1, 1), (4, 2)])

    got = gate_means(view, rows, adapter)

    hidden = []  # what enters the gate of block 1: nothing below is intervened on
    for row in rows:
        states = base.model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[2][0]
        hidden.append(adapter.interventions[1].weights(states[max(row.prompt_length - 3, 1) :]).mean(0))
    torch.testing.assert_close(got[1], torch.stack(hidden).mean(0).detach(), rtol=0, atol=1e-6)
