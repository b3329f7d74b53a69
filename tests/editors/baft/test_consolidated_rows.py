"""Consolidated edits beside a fit whose adapter will act in a scope: which of them are kept, and which are lost."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from service.editors.baft.dataset import build_dataset
from service.editors.baft.fit import fit_baft
from service.editors.baft.row_runner import RowRunner
from service.editors.known_names import NO_NAMES
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lm.last_tokens import LastTokens
from service.lm.overlay import EMPTY
from tests.editors.taught_model import FACTS, item, neutral, settings, taught_base, view_of

# A fit that keeps nothing and moves everything.
RECKLESS = {"replay": 0, "preserve_weight": 0.0, "contrast_weight": 0.0, "attempts": 1, "learning_rate": 0.3}
NEW = [item(prompt, "Z") for prompt in ("red is", "sky is", "sea is", "sun is", "ice is")]


def consolidated(prompt: str, target: str | None = None) -> FitItem:
    return replace(item(prompt, target or FACTS[prompt]), is_consolidated=True)


def fit(kept: list[FitItem], scope: str = "auto") -> FitResult:
    choice = settings(**RECKLESS, joint_learning_rate=0.3, scope=scope)
    return fit_baft(taught_base(), view_of, EMPTY, NEW, kept, settings=choice, neutral=neutral(), seed=1)


def test_a_fit_does_not_lose_consolidated_edits_that_its_adapter_will_not_act_on() -> None:
    kept = [consolidated("cat is"), consolidated("dog is")]

    assert set(fit(kept, "always").lost) == {"cat is", "dog is"}
    assert fit(kept).lost == ()
    assert fit(kept).scores["retention"] == 1.0


def test_a_consolidated_edit_that_the_tensors_do_not_answer_stays_lost_out_of_scope() -> None:
    assert fit([consolidated("cat is"), consolidated("dog is", "Q")]).lost == ("dog is",)


def test_a_consolidated_edit_in_scope_is_lost_if_the_adapter_changes_its_answer() -> None:
    assert fit([consolidated("cat is"), consolidated("red sea is", "Q")]).lost == ("red sea is",)


@pytest.mark.parametrize("order", list(permutations(("cat is", "dog is", "the red cat is"))))
def test_rows_in_scope_are_kept_first_where_not_all_can_be(order: tuple[str, ...]) -> None:
    items = [item("red is", "Z"), *(consolidated(prompt, "A") for prompt in order)]
    choice, last = settings(consolidated_pool=1), LastTokens(3)
    runner = RowRunner(view_of(EMPTY), 0, last, True, Hooks())

    dataset = build_dataset(
        runner, items, 1, settings=choice, neutral=neutral(), names=NO_NAMES, generator=torch.Generator().manual_seed(0)
    )

    assert [items[row.item].edit.prompt for row in dataset.rows[dataset.window_end :]] == ["the red cat is"]
