"""What a base model counts as knowing."""

import pytest
import torch

from service.editors.protocol import FitCancelled, Hooks
from service.lm.overlay import EMPTY
from service.lm.scoring import decode_greedily, row_losses
from service.lm.tokenizing import decode_answer
from service.locality.known import CONFIDENT_LOSS, cut_answer, find_known
from service.locality.questions import Question
from service.locality.sampled import sample_known
from tests.editors.taught_model import FACTS, neutral, taught_base, view_of

VIEW = view_of(EMPTY)


def question(*wordings: str) -> Question:
    return Question("colour", wordings[0], wordings)


def test_an_answer_that_the_base_is_sure_of_is_known_with_its_own_tokens_alone() -> None:
    known = find_known(VIEW, [question(prompt) for prompt in FACTS], Hooks())

    assert [item.answer for item in known] == list(FACTS.values())
    for item in known:
        (answer,) = decode_greedily(VIEW, None, [item.row.prompt_ids], max_new_tokens=8)
        assert answer[: len(item.row.target_ids)] == item.row.target_ids
        assert decode_answer(taught_base(), item.row.target_ids) == item.answer
        assert float(row_losses(VIEW, [item.row], None)) <= CONFIDENT_LOSS


def test_an_answer_that_changes_with_the_wording_is_not_known() -> None:
    same, other = question("red is", "red is"), question("red is", "sky is")

    assert [item.subject for item in find_known(VIEW, [other, same, other], Hooks())] == ["red is"]


def test_an_answer_that_the_base_is_unsure_of_is_not_known() -> None:
    unsure = [question(text) for text in ("zebra quickly", "a b c d e", "the")]

    for item in find_known(VIEW, unsure, Hooks()):
        assert float(row_losses(VIEW, [item.row], None)) <= CONFIDENT_LOSS


def test_the_rows_take_turns_with_the_wordings() -> None:
    twice = Question("colour", "red", ("red is", "red is"))

    assert len(find_known(VIEW, [twice, twice], Hooks(), most=1)) == 1
    assert len(find_known(VIEW, [twice, twice], Hooks())) == 2


def test_an_answer_ends_before_its_first_full_stop_and_one_without_an_end_is_none() -> None:
    base = taught_base()
    ids = base.tokenizer("blue. Red", add_special_tokens=False).input_ids
    end = next(length for length in range(1, len(ids)) if "." in base.tokenizer.decode(ids[:length]))

    assert cut_answer(base, ids) == tuple(ids[: end - 1])
    assert cut_answer(base, ids[: end - 1]) == ()
    assert cut_answer(base, [*ids[: end - 1], base.eos_ids[0]]) == tuple(ids[: end - 1])


def test_sampled_answers_are_the_base_s_own_and_the_same_every_time() -> None:
    first, again = (sample_known(VIEW, neutral().held_out, Hooks(), most=4) for _ in range(2))

    assert [item.row for item in first] == [item.row for item in again]
    for item in first:
        (answer,) = decode_greedily(VIEW, None, [item.row.prompt_ids], max_new_tokens=len(item.row.target_ids))
        assert answer == item.row.target_ids


@pytest.mark.parametrize("steps", [0, 1])
def test_the_search_for_known_answers_can_be_cancelled(steps: int) -> None:
    taken: list[int] = []
    hooks = Hooks(yield_to_answers=lambda: taken.append(1), is_cancelled=lambda: len(taken) > steps)

    with torch.no_grad(), pytest.raises(FitCancelled):
        find_known(VIEW, [question("red is")], hooks)
