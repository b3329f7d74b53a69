"""Outcomes of questions, beside what plain transformers says to them, one prompt at a time and without any code of ours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from service.evaluation.capability.measure import Task, measure_capability
from service.evaluation.metrics.log_likelihood import compute_log_likelihoods
from service.evaluation.metrics.outcomes import (
    QUESTIONS_AT_ONCE,
    Outcome,
    Reference,
    measure_outcomes,
    predict_choices,
    split_into_batches,
)
from service.evaluation.metrics.teacher_forcing import agreement, teacher_force
from service.evaluation.records import EvalProbe, Record, list_questions
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from tests.builders import intervention_context, make_adapter
from tests.evaluation.letter_model import LONGEST, PROMPTS, base, reference


def adapter() -> Adapter:
    return make_adapter((1, 2), scale=2.0)


@torch.no_grad()
def naive_answer(prompt: str, adapter: Adapter | None) -> tuple[int, ...]:
    """Greedy decoding the slow way: the whole sequence again for every token, one row, no padding, no cache."""
    on = reference().view
    ids = list(encode_prompt(base(), prompt))
    first = max(len(ids) - 3, 1)  # the last three tokens of the prompt without BOS
    answer: list[int] = []
    while len(answer) < LONGEST and (not answer or answer[-1] not in base().eos_ids):
        row = torch.tensor([[*ids, *answer]])
        mask = torch.arange(row.shape[1])[None, :] >= first
        with intervention_context(adapter.interventions if adapter else {}, mask):
            answer.append(int(on.model(row).logits[0, -1].argmax()))
    return tuple(answer)


def outcomes(records: Sequence[Record], adapter: Adapter | None) -> list[Outcome]:
    asks = [ask for record in records for ask in list_questions(record, ("raw",))]
    return measure_outcomes(reference().view, adapter, reference(), asks)


def record(prompt: str, target: str = "Graz", **probes: tuple[EvalProbe, ...]) -> Record:
    return Record(id=prompt, prompt=prompt, target=target, **probes)


def locality_record(*prompts: str, answer: str | None = None) -> Record:
    return record("unused", locality=tuple(EvalProbe(prompt=prompt, answer=answer) for prompt in prompts))


def test_the_locality_of_the_base_model_is_one() -> None:
    results = [outcome for outcome in outcomes([locality_record(*PROMPTS)], None) if outcome.question.kind == "locality"]

    assert [(outcome.greedy, outcome.tokens) for outcome in results] == [(True, 1.0)] * len(PROMPTS)


def test_locality_is_equality_of_whole_greedy_answers() -> None:
    results = [
        outcome.greedy for outcome in outcomes([locality_record(*PROMPTS)], adapter()) if outcome.question.kind == "locality"
    ]

    expected = [naive_answer(prompt, adapter()) == naive_answer(prompt, None) for prompt in PROMPTS]
    assert results == expected
    assert not all(expected)  # else this would show nothing


def test_token_locality_is_agreement_of_choices_along_the_named_answer() -> None:
    [outcome] = [
        one for one in outcomes([locality_record("Vienna 在", answer="Austria")], adapter()) if one.question.kind == "locality"
    ]

    row = encode_row(base(), "Vienna 在", "Austria", eos=False)
    ids = torch.tensor([row.ids])
    mask = torch.arange(len(row.ids))[None, :] >= row.prompt_length - 3
    with torch.no_grad():
        plain = reference().view.model(ids).logits[0].argmax(-1)
        with intervention_context(adapter().interventions, mask):
            moved = reference().view.model(ids).logits[0].argmax(-1)
    predicting = slice(row.prompt_length - 1, len(row.ids) - 1)
    assert outcome.tokens == pytest.approx((plain == moved)[predicting].float().mean().item())


def test_an_edit_is_reliable_exactly_if_greedy_decoding_gives_its_target() -> None:
    records, expected = [], []
    for prompt in PROMPTS:
        for answer in (naive_answer(prompt, None), naive_answer(prompt, adapter())):
            text = base().tokenizer.decode(list(answer), skip_special_tokens=True)
            if text:
                records.append(replace(record(prompt, text), surfaces=("raw",)))
                expected_ids = encode_row(base(), prompt, text).target_ids
                expected.append((naive_answer(prompt, adapter()) == expected_ids, naive_answer(prompt, None) == expected_ids))

    results = outcomes(records, adapter())

    assert [(outcome.greedy, outcome.base_greedy) for outcome in results] == expected
    assert {True, False} == {version for version, _ in expected} == {base for _, base in expected}  # else this would show nothing


def test_token_accuracy_covers_the_text_and_not_eos() -> None:
    row = encode_row(base(), "Vienna 在", "Graz and Linz", eos=False)
    [answer] = teacher_force(reference().view, adapter(), [row])

    [outcome] = outcomes([record("Vienna 在", "Graz and Linz")], adapter())

    assert outcome.tokens == pytest.approx(agreement(answer.choices, row.target_ids))


def test_base_answers_to_many_locality_prompts_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counting(on: View, using: Adapter | None, prompts: Sequence[Sequence[int]], **more: Any) -> list[tuple[int, ...]]:
        decoded.append(len(prompts))
        return decode_greedily(on, using, prompts, **more)

    monkeypatch.setattr("service.evaluation.metrics.outcomes.decode_greedily", counting)
    asks = [ask for ask in list_questions(locality_record(*PROMPTS), ("raw",)) if ask.kind == "locality"]

    measure_outcomes(reference().view, adapter(), Reference(reference().view, longest_answer=LONGEST), asks)

    assert decoded == [len(PROMPTS)]


def test_questions_are_asked_in_batches_with_a_pause_before_each() -> None:
    asks = list(
        list_questions(
            record("Vienna 在", portability=tuple(EvalProbe(prompt=f"{n} is", answer="Graz") for n in range(80))), ("raw",)
        )
    )
    pieces = [list(piece) for piece in split_into_batches(asks, lambda: None)]
    pauses: list[int] = []

    results = measure_outcomes(reference().view, adapter(), reference(), asks, yield_to_answers=lambda: pauses.append(1))

    assert [len(piece) for piece in pieces] == [QUESTIONS_AT_ONCE, QUESTIONS_AT_ONCE, 81 - 2 * QUESTIONS_AT_ONCE]
    assert len(pauses) >= 2 * len(pieces)  # before each, and after each pass of the model
    assert results == measure_outcomes(reference().view, adapter(), reference(), asks)


@pytest.mark.parametrize("ask", [teacher_force, predict_choices, compute_log_likelihoods], ids=lambda ask: str(ask.__name__))
def test_one_pass_computes_at_most_the_allowed_number_of_logits(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = reference().view.model.get_output_embeddings().weight.shape[0]
    monkeypatch.setattr("service.evaluation.metrics.length_batches.MOST_LOGITS", 40 * vocabulary)
    rows = [encode_row(base(), f"Number {n} is", "Graz and Linz and Graz") for n in range(12)]
    sizes: list[int] = []

    def watched(*arguments: Any, **more: Any) -> torch.Tensor:
        logits = compute_target_logits(*arguments, **more)
        sizes.append(logits.shape[0])
        return logits

    monkeypatch.setattr("service.lm.scoped_rows.compute_target_logits", watched)
    ask(reference().view, adapter(), rows)

    assert sum(sizes) == sum(len(row.target_ids) for row in rows) > 40
    assert max(sizes) <= 40


def test_a_long_answer_is_decoded_with_pauses() -> None:
    pauses: list[int] = []

    decode_greedily(
        reference().view,
        None,
        [encode_prompt(base(), PROMPTS[0])],
        max_new_tokens=17,
        stop_eos=False,
        yield_to_answers=lambda: pauses.append(1),
    )

    assert len(pauses) == 3  # after 8 and 16 tokens, and at the end


def test_tokens_can_be_right_where_the_answer_is_not() -> None:
    row = encode_row(base(), "Vienna 在", "Graz and Linz", eos=False)

    [outcome] = outcomes([record("Vienna 在", "Graz and Linz")], adapter())

    assert not outcome.greedy
    assert outcome.tokens * len(row.target_ids) == pytest.approx(round(outcome.tokens * len(row.target_ids)))  # a share of tokens


def test_the_score_of_a_question_does_not_depend_on_other_questions() -> None:
    records = [locality_record(*PROMPTS), *(record(prompt) for prompt in PROMPTS)]

    together = outcomes(records, adapter())

    assert together == [outcome for one in records for outcome in outcomes([one], adapter())]


def test_capability_is_the_share_of_tasks_and_its_ratio_to_the_base_model() -> None:
    answers = {prompt: naive_answer(prompt, None) for prompt in PROMPTS}
    solvable = [
        Task("said", prompt, text)
        for prompt, ids in answers.items()
        for text in [base().tokenizer.decode(list(ids), skip_special_tokens=True)]
        if text.strip() and encode_row(base(), prompt, text).target_ids == ids
    ]
    tasks = [*solvable, Task("not said", "The 是", "Graz")]

    results = measure_capability(reference().view, None, reference(), tasks)

    assert results.base == pytest.approx(len(solvable) / len(tasks))
    assert results.ratio == (1.0 if solvable else None)
    assert results.by_skill["not said"] == (0.0, 0.0)
