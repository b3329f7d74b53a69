"""Capability tasks: the field's forms, and scores beside what plain forward passes of single rows give."""

import json
import math
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from service.domain.errors import Refused
from service.evaluation.capability.measure import Task, load_tasks, measure_capability
from service.evaluation.metrics.log_likelihood import compute_log_likelihoods
from service.evaluation.metrics.matching import normalise_squad
from service.evaluation.metrics.outcomes import Reference
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import make_view
from service.lm.prompts import Row, encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from tests.builders import intervention_context, make_adapter, make_base

QUESTION = "Question: Which is cold?\nAnswer:"
CHOICES = ("the snow", "fire", "a rather long answer")


@lru_cache(maxsize=1)
def base() -> Base:
    return make_base()


@lru_cache(maxsize=1)
def reference() -> Reference:
    return Reference(make_view(base()))


def adapter() -> Adapter:
    return make_adapter((1, 2), scale=2.0)


@torch.no_grad()
def naive_log_likelihood(row: Row, adapter: Adapter | None) -> float:
    """One row, no padding, no batch: log softmax of a whole forward pass, read off at the target."""
    ids = torch.tensor([row.ids])
    mask = torch.arange(len(row.ids))[None, :] >= max(row.prompt_length - 3, 1)  # the last three of the prompt, never BOS
    with intervention_context(adapter.interventions if adapter else {}, mask):
        logs = reference().view.model(ids).logits[0].double().log_softmax(-1)
    return sum(float(logs[at - 1, row.ids[at]]) for at in range(row.prompt_length, len(row.ids)))


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("edited", [False, True])
def test_log_likelihoods_of_a_batch_are_those_of_single_rows(edited: bool) -> None:
    rows = [encode_row(base(), QUESTION[: 9 + number], choice, eos=False) for number, choice in enumerate(CHOICES * 3)]
    used = adapter() if edited else None

    result = compute_log_likelihoods(reference().view, used, rows)

    assert [total for total, _ in result] == pytest.approx([naive_log_likelihood(row, used) for row in rows], rel=1e-5)


def test_a_row_is_greedy_exactly_when_greedy_decoding_writes_it() -> None:
    prompt = encode_prompt(base(), QUESTION)
    [ids] = decode_greedily(reference().view, adapter(), [prompt], max_new_tokens=4)
    rows = [Row((*prompt, *ids), len(prompt), True), Row((*prompt, *ids[:-1], (ids[-1] + 1) % 300), len(prompt), True)]

    assert [is_greedy for _, is_greedy in compute_log_likelihoods(reference().view, adapter(), rows)] == [True, False]


def test_a_choice_is_right_by_the_sum_and_by_the_character() -> None:
    rows = [encode_row(base(), QUESTION, choice, eos=False) for choice in CHOICES]
    sums = [naive_log_likelihood(row, adapter()) for row in rows]
    by_sum = max(CHOICES, key=lambda choice: sums[CHOICES.index(choice)])
    by_character = max(CHOICES, key=lambda choice: sums[CHOICES.index(choice)] / len(choice))
    assert by_sum != by_character  # else this test could not tell them apart

    result = [
        measure_capability(reference().view, adapter(), reference(), [Task("s", QUESTION, choice, "choice", CHOICES)])
        for choice in CHOICES
    ]

    assert [one.figures["s"]["acc"].version for one in result] == [float(choice == by_sum) for choice in CHOICES]
    assert [one.figures["s"]["acc_norm"].version for one in result] == [float(choice == by_character) for choice in CHOICES]
    assert [one.version for one in result] == [one.figures["s"]["acc"].version for one in result]  # acc is what counts


def test_every_capability_figure_has_n_standard_error_and_base() -> None:
    tasks = []
    for number in range(4):
        prompt = f"Question: Which is {number}?\nAnswer:"
        sums = [naive_log_likelihood(encode_row(base(), prompt, choice, eos=False), None) for choice in CHOICES]
        best = sums.index(max(sums))
        tasks.append(Task("s", prompt, CHOICES[best if number == 0 else best - 1], "choice", CHOICES))  # one of four is right

    result = measure_capability(reference().view, None, reference(), tasks).to_json()

    figure = result["by_skill"]["s"]["acc"]
    assert (figure["n"], result["n"], figure["ratio"], result["ratio"]) == (4, 4, 1.0, 1.0)
    assert (figure["version"], figure["base"]) == (0.25, 0.25)
    assert figure["se"] == pytest.approx(math.sqrt((0.75**2 + 3 * 0.25**2) / 3) / 2)  # √(Σ(x - m)² / (n - 1)) / √n


def test_the_base_model_is_scored_once_with_a_cache() -> None:
    tasks, remembered = [Task("s", QUESTION, "fire", "choice", CHOICES)], {}
    both, one = [], []
    ask = partial(measure_capability, reference().view, adapter(), reference(), tasks, cache=remembered)

    first = ask(yield_to_answers=lambda: both.append(1))
    second = ask(yield_to_answers=lambda: one.append(1))

    assert second == first
    assert 2 * len(one) == len(both)  # the version's alone


def test_tasks_too_long_for_the_model_are_left_out_and_counted() -> None:
    tasks = [Task("s", "word " * 200, "fire"), Task("s", QUESTION, "fire", "choice", CHOICES)]

    result = measure_capability(reference().view, None, reference(), tasks)

    assert (result.n, result.left_out) == (1, 1)


def test_the_ratio_is_none_if_the_base_model_solves_nothing() -> None:
    result = measure_capability(reference().view, None, reference(), [Task("s", "Snow is", "Graz and Linz", "text")])

    assert (result.base, result.ratio) == (0.0, None)
    assert result.to_json()["by_skill"]["s"]["em"]["se"] is None  # one task has no spread


def test_multiple_choice_takes_an_index_a_letter_or_the_text(tmp_path: Path) -> None:
    row = {"id": "q", "question": "Which is cold?", "choices": list(CHOICES)}

    by_index, by_text, by_letter, mmlu = load_tasks(
        write(
            tmp_path, row | {"answer": 1}, row | {"answer": "fire"}, row | {"answer": "B"}, row | {"answer": 1, "dataset": "mmlu"}
        )
    )

    assert by_index == by_text == Task("own", QUESTION, "fire", "choice", CHOICES)
    assert (by_letter.answer, by_letter.choices) == ("B", ("A", "B", "C"))
    assert by_letter.prompt == "Which is cold?\nA. the snow\nB. fire\nC. a rather long answer\nAnswer:"
    assert (mmlu.prompt, mmlu.answer, mmlu.skill) == (by_letter.prompt, "B", "mmlu")


def test_a_classification_is_a_choice_between_the_words_of_its_labels(tmp_path: Path) -> None:
    plain, own = load_tasks(
        write(
            tmp_path,
            {"id": "s", "text": "A fine film.", "label": 1, "dataset": "sst2"},
            {"text": "Rain.", "label": 0, "verbaliser": ["wet", "dry"], "instruction": "How is it?"},
        )
    )

    question = "A fine film.\nQuestion: Is this sentence positive or negative?\nAnswer:"
    assert plain == Task("sst2", question, "positive", "choice", ("negative", "positive"))
    assert own == Task("own", "Rain.\nQuestion: How is it?\nAnswer:", "wet", "choice", ("wet", "dry"))


def test_a_number_is_read_after_the_mark_or_from_the_end(tmp_path: Path) -> None:
    marked, apart = load_tasks(
        write(
            tmp_path,
            {"question": "How many?", "choices": [], "answer": "2 and 2 are 4, so 1,200\n#### 1,200", "dataset": "gsm8k"},
            {"question": "How many?", "choices": [], "answer": "1200", "solution": "…\n#### 1200", "dataset": "gsm8k"},
        )
    )
    from service.evaluation.capability.measure import _is_right_text

    assert (marked.kind, marked.answer) == ("number", "1,200")
    written = {
        "#### 1200": True,
        "It is 7.\n#### 1,200 in all": True,
        "first 5, then $1200.00": True,
        "1200, no: 1201": False,
        "#### 1201": False,
        "none": False,
        "1200\nQuestion: How many? 7": True,
    }
    assert {text: _is_right_text(apart, text) for text in written} == written


def test_written_answers_are_compared_as_squad_does() -> None:
    assert normalise_squad("The  U.S.A., a state!") == "usa state"
    assert normalise_squad("Theatre") == "theatre"


def test_tasks_behind_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"question": "Q?", "choices": ["7", "8"], "answer": "8"}).encode())

    assert [task.answer for task in load_tasks(path)] == ["8"]


@pytest.mark.parametrize("answer", ["so it is\n#### yes", "18 ####"])
def test_a_solution_without_a_number_is_a_bad_row(answer: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="line 1"):
        load_tasks(write(tmp_path, {"question": "How many?", "answer": answer}))


def test_mmlu_questions_are_asked_by_letter_under_any_skill(tmp_path: Path) -> None:
    [task] = load_tasks(
        write(tmp_path, {"question": "Q?", "choices": ["one", "two"], "answer": 1, "dataset": "mmlu_sample", "skill": "law"})
    )

    assert (task.skill, task.choices, task.answer) == ("law", ("A", "B"), "B")


def test_the_share_of_no_tasks_is_none() -> None:
    result = measure_capability(reference().view, None, reference(), [Task("s", "long " * 500, "Graz")])

    assert (result.version, result.base, result.ratio, result.left_out) == (None, None, None, 1)


def test_an_open_question_without_numbers_is_a_text_task(tmp_path: Path) -> None:
    stem, question = load_tasks(
        write(
            tmp_path,
            {"question": "Cumhuriyet was written in", "choices": [], "answer": "Turkish"},
            {"question": "Who?", "answer": "I"},
        )
    )

    assert stem == Task("own", "Cumhuriyet was written in", "Turkish", "text")
    assert question.prompt == "Question: Who?\nAnswer:"


@pytest.mark.parametrize(
    "row",
    [
        "[]",
        "7",
        "{",
        '{"question": "q", "choices": ["a", "b"], "answer": 2}',
        '{"question": "q", "choices": ["a", "b"], "answer": true}',
        '{"question": "q", "choices": ["a", "b"], "answer": "c d"}',
        '{"question": "q", "choices": ["a", "b"], "answer": "C"}',
        '{"question": " ", "answer": "a"}',
        '{"text": "t", "label": 2}',
        '{"prompt": "p"}',
        '{"answer": "a"}',
    ],
)
def test_a_row_that_is_no_task_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}\n\n' + row + "\n")

    with pytest.raises(Refused, match="line 3"):
        load_tasks(path)


def test_a_file_without_tasks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")

    for name in ("empty.jsonl", "bytes.jsonl", "none.jsonl"):
        with pytest.raises(Refused):
            load_tasks(tmp_path / name)
