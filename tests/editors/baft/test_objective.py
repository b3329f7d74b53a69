"""Every term of BaFT's objective against the paper's formula written out again, in float64 and plain loops."""

import math

import pytest
import torch

from service.editors.baft.objective import (
    balance_term,
    commit_balance,
    edit_means,
    margin_term,
    position_means,
    rescale,
)
from service.editors.losses import divergence, edit_loss
from service.lm.intervention import Balance


def weights_like(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def balance_by_hand(past_sums: list[float], past: int, current: list[list[float]], *, squared: bool) -> float:
    rank, edits = len(past_sums), len(current)
    means = [(past_sums[k] + sum(edit[k] for edit in current)) / (past + edits) for k in range(rank)]
    overall = sum(means) / rank
    spread = sum((mean - overall) ** 2 for mean in means)
    return spread / ((rank - 1) * (overall**2 if squared else overall))


@pytest.mark.parametrize(("form", "squared"), [("cv2", True), ("paper", False)])
def test_load_balancing_is_the_papers_sum_over_current_and_past_edits(form, squared):
    current, past = weights_like(3, 5), weights_like(5, seed=1) * 7

    term = balance_term(current, Balance(past, 7), form)

    assert float(term) == pytest.approx(balance_by_hand(past.tolist(), 7, current.tolist(), squared=squared), rel=1e-6)


def gradient_by_hand(past_sums: list[float], past: int, current: list[float], loss: float) -> list[float]:
    """d/dw_k of λR for one edit: R as the paper prints it, λ = L1 / R without a limit and without a gradient."""
    rank, count = len(past_sums), past + 1
    means = [(past_sums[k] + current[k]) / count for k in range(rank)]
    overall = sum(means) / rank
    spread = sum((mean - overall) ** 2 for mean in means)
    term = spread / ((rank - 1) * overall)
    slopes = [(2 * (mean - overall) / overall - spread / (rank * overall**2)) / ((rank - 1) * count) for mean in means]
    return [loss / term * slope for slope in slopes]


@pytest.mark.parametrize("past", [0, 10, 1_000, 100_000])
def test_load_balancing_without_a_limit_has_the_gradient_of_the_papers_objective(past):
    current = weights_like(1, 5).float().requires_grad_()
    sums = past * (0.4 + 0.01 * weights_like(5, seed=1))  # nearly even, as after many edits

    rescale(balance_term(current, Balance(sums.float(), past), "paper"), torch.tensor(3.0), None).backward()

    by_hand = gradient_by_hand(sums.tolist(), past, current[0].double().tolist(), 3.0)
    assert current.grad is not None
    assert current.grad[0].tolist() == pytest.approx(by_hand, rel=2e-3)


@pytest.mark.parametrize(("form", "power"), [("cv2", 2), ("paper", 1)])
def test_both_forms_of_load_balancing_push_the_common_level_of_the_weights_up(form, power):
    current = weights_like(1, 5).requires_grad_()
    term = balance_term(current, None, form)
    term.backward()

    assert current.grad is not None
    assert float(current.grad.sum()) == pytest.approx(-power * float(term.detach()) / float(current.detach().mean()), rel=1e-5)


def test_load_balancing_without_a_past_counts_the_current_edits_alone():
    current = weights_like(2, 4)

    assert float(balance_term(current, None, "cv2")) == pytest.approx(
        balance_by_hand([0.0] * 4, 0, current.tolist(), squared=True), rel=1e-6
    )


def test_the_past_of_load_balancing_gets_no_gradient():
    current, past = weights_like(2, 4).requires_grad_(), weights_like(4, seed=1).requires_grad_()

    balance_term(current, Balance(past, 3), "cv2").backward()

    assert past.grad is None
    assert current.grad is not None
    assert float(current.grad.abs().sum()) > 0


def test_a_single_basis_has_nothing_to_balance():
    assert float(balance_term(weights_like(3, 1), None, "cv2")) == 0.0


def test_squared_variation_ignores_the_level_of_the_weights_and_the_printed_form_does_not():
    current = weights_like(3, 5)

    assert float(balance_term(current / 10, None, "cv2")) == pytest.approx(float(balance_term(current, None, "cv2")), rel=1e-5)
    assert float(balance_term(current / 10, None, "paper")) == pytest.approx(
        float(balance_term(current, None, "paper")) / 10, rel=1e-5
    )


def test_an_edit_with_many_rows_counts_once():
    weights = torch.tensor([[0.2, 0.4], [0.6, 0.0], [1.0, 1.0]])

    assert torch.allclose(edit_means(weights, torch.tensor([7, 7, 9])), torch.tensor([[0.4, 0.2], [1.0, 1.0]]))


def test_committing_adds_each_edit_once_to_sum_and_count():
    first = commit_balance(None, torch.tensor([[0.1, 0.3], [0.2, 0.4]]))
    second = commit_balance(first, torch.tensor([[0.5, 0.5]]))

    assert (first.count, second.count) == (2, 3)
    assert torch.allclose(second.total, torch.tensor([0.8, 1.2]))


def test_beyond_the_horizon_a_past_edit_fades_and_a_current_one_keeps_its_weight():
    state, expected = None, torch.zeros(2)
    for number in range(1, 9):
        state = commit_balance(state, torch.tensor([[number / 10, 0.5]]), horizon=3)
        weight = 1 if number <= 3 else 3 / 4  # three remembered edits and a new one, scaled to three
        expected = (expected + torch.tensor([number / 10, 0.5])) * weight

    assert state is not None and state.count == 3
    assert torch.allclose(state.total, expected)
    assert torch.allclose(state.total[1] / state.count, torch.tensor(0.5))  # the mean of equal weights stays what it was


def test_the_margin_term_is_the_papers_three_hinges():
    edit, unrelated = weights_like(2, 3), weights_like(2, 3, seed=4)
    alpha, beta, gamma = 0.3, 0.6, 0.2
    quiet = sum(max(0.0, value - alpha) for row in unrelated.tolist() for value in row) / 6
    loud = sum(max(0.0, beta - value) for row in edit.tolist() for value in row) / 6
    gaps = [max(a) - max(b) for a, b in zip(edit.tolist(), unrelated.tolist(), strict=True)]
    by_hand = quiet + loud + sum(max(0.0, gamma - gap) for gap in gaps) / 2

    assert float(margin_term(edit, unrelated, alpha=alpha, beta=beta, gamma=gamma)) == pytest.approx(by_hand, rel=1e-9)


def test_the_margin_term_is_zero_if_all_margins_hold():
    edit, unrelated = torch.full((1, 3), 0.9), torch.full((1, 3), 0.005)

    assert float(margin_term(edit, unrelated, alpha=0.01, beta=0.1, gamma=0.05)) == 0.0


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", ((1 + 2 + 3) + 10) / 2), ("sample", (2 + 10) / 2), ("token", (1 + 2 + 3 + 10) / 4)],
)
def test_the_edit_loss_has_the_reduction_of_its_name(reduction, expected):
    losses, row_of = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([0, 0, 0, 1])

    assert float(edit_loss(losses, row_of, 2, reduction)) == pytest.approx(expected)


def test_a_regulariser_is_scaled_to_the_size_of_the_edit_loss_up_to_the_limit():
    term = torch.tensor(0.5)

    assert float(rescale(term, torch.tensor(2.0), 10.0)) == pytest.approx(2.0)
    assert float(rescale(torch.tensor(1e-4), torch.tensor(2.0), 10.0)) == pytest.approx(1e-3)
    assert float(rescale(torch.tensor(0.0), torch.tensor(2.0), 10.0)) == 0.0


def test_without_a_limit_a_small_regulariser_is_scaled_fully_and_rounding_counts_as_zero():
    assert float(rescale(torch.tensor(1e-9), torch.tensor(2.0), None)) == pytest.approx(2.0)
    assert float(rescale(torch.tensor(1e-14), torch.tensor(2.0), None)) == 0.0


def test_rescaling_multiplies_the_gradient_by_a_constant():
    term = torch.tensor(0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(rescale(term, torch.tensor(2.0), 10.0), term)

    assert float(gradient) == pytest.approx(4.0)


def test_divergence_is_the_mean_kl_from_the_reference():
    logits, other = (
        torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),
        torch.randn(4, 6, generator=torch.Generator().manual_seed(1)),
    )
    p, q = torch.softmax(other, -1).tolist(), torch.softmax(logits, -1).tolist()
    by_hand = sum(a * math.log(a / b) for row, col in zip(p, q, strict=True) for a, b in zip(row, col, strict=True)) / 4

    assert float(divergence(logits, torch.log_softmax(other, -1))) == pytest.approx(by_hand, rel=1e-5)
    assert float(divergence(other, torch.log_softmax(other, -1))) == pytest.approx(0.0, abs=1e-7)


def test_position_means_are_over_intervened_positions_only():
    weights = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])

    assert torch.equal(position_means(weights, torch.tensor([[True, True, False]])), torch.tensor([[2.0, 3.0]]))
