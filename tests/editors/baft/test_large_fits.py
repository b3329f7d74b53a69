"""Fits of many or long rows: several forward passes give the numbers of one, and answers go first between passes."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

import pytest
import torch

from service.editors import protocol
from service.editors.baft import prepared_rows, step_outputs, training_loop
from service.editors.baft.fit import fit_baft
from service.editors.baft.prepared_rows import join_rows, prepare_rows
from service.editors.baft.preserve_term import PreservedRows
from service.editors.baft.row_runner import RowRunner
from service.editors.protocol import FitCancelled, FitItem, FitResult, Hooks
from service.lm import row_groups
from service.lm.cached_step import PrefilledRows
from service.lm.last_tokens import LastTokens
from service.lm.overlay import EMPTY, compute_logits
from service.lm.prompts import Row, collate, encode_row
from service.lm.row_groups import PASS_TOKENS, group_by_length, group_by_padding, split_in_order
from tests.editors.taught_model import FACTS, item, neutral, settings, taught_base, view_of

SHORT, LONG = 8, 100
BLOCK = 1


def fit(new: Sequence[FitItem], *, hooks: Hooks | None = None, **changes: object) -> FitResult:
    rules = settings(steps=3, joint_steps=3, attempts=1, **changes)
    return fit_baft(taught_base(), view_of, EMPTY, new, [], settings=rules, neutral=neutral(), seed=1, hooks=hooks)


def tensors(fitted: FitResult) -> dict[str, torch.Tensor]:
    assert fitted.overlay.adapter is not None
    each = fitted.overlay.adapter.interventions.items()
    return {f"{block}.{name}": tensor for block, one in each for name, tensor in one.tensors().items()}


def rows(*lengths: int) -> list[Row]:
    """Rows of about so many tokens: the tokenizer has one for a byte."""
    return [encode_row(taught_base(), "x" * length, "A") for length in lengths]


def test_ranges_are_bounded_in_rows_and_in_tokens_and_keep_the_order() -> None:
    assert [list(piece) for piece in split_in_order([5] * 5, rows=2, tokens=100)] == [[0, 1], [2, 3], [4]]
    assert [list(piece) for piece in split_in_order([5, 5, 50, 5], rows=9, tokens=60)] == [[0, 1], [2], [3]]
    assert [list(piece) for piece in split_in_order([500], rows=9, tokens=60)] == [[0]]
    assert list(split_in_order([])) == []


def test_groups_of_like_length_hold_every_row_once_and_are_one_group_if_all_fit() -> None:
    assert group_by_length([3, 1, 2], tokens=9) == [[0, 1, 2]]
    assert group_by_length([30, 1, 2, 30, 3], tokens=60) == [[1, 2, 4], [0, 3]]
    assert group_by_length([]) == []


def padded_tokens(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) + PASS_TOKENS for group in groups)


def all_groupings(rows: list[int]) -> Iterator[list[list[int]]]:
    """Every way to part rows into groups."""
    if not rows:
        yield []
    for size in range(len(rows)):
        for others in combinations(rows[1:], size):
            rest = [row for row in rows[1:] if row not in others]
            yield from ([[rows[0], *others], *more] for more in all_groupings(rest))


@pytest.mark.parametrize("lengths", [[], [9], [5] * 6, [4, 60, 5, 70, 6], [1, 20, 60, 200, 2, 190], [3, 80, 3, 81, 160, 40]])
def test_no_other_groups_have_fewer_tokens_with_their_padding(lengths: list[int]) -> None:
    found = group_by_padding(lengths)

    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    assert padded_tokens(lengths, found) == min(padded_tokens(lengths, each) for each in all_groupings(list(range(len(lengths)))))


def test_what_is_preserved_in_groups_is_the_mean_over_all_positions_of_whole_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle: both models run over each row alone, without anything computed before, and KL is added up by the formula."""
    monkeypatch.setattr(row_groups, "PASS_TOKENS", 2)
    fitted = fit([item("red is", "Z")]).overlay.adapter
    assert fitted is not None
    runner = RowRunner(view_of(EMPTY), min(fitted.interventions), LastTokens(), True, Hooks())
    given = [encode_row(taught_base(), "x" * 9, answer) for answer in ("A", "B" * 20, "C", "D" * 15, "E E")]
    preserved = PreservedRows(runner, given, runner.make_passes(given))
    assert len(group_by_padding([len(row) for row in given])) > 1

    found = preserved.divergence(range(len(given)), fitted.interventions)

    terms = []
    for row in given:
        batch = collate(taught_base(), [row], last=LastTokens())
        plain, edited = (
            compute_logits(view_of(EMPTY), batch, change, head_mask=batch.prediction_mask).double().log_softmax(-1)
            for change in (None, fitted.interventions)
        )
        terms.append((plain.exp() * (plain - edited)).sum(-1))
    assert float(found.detach()) > 1e-4
    torch.testing.assert_close(found.detach().double(), torch.cat(terms).mean().detach(), rtol=1e-3, atol=1e-6)


def test_a_step_in_parts_gives_the_numbers_of_a_step_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    new = [item("red is", "Z", rephrases=("the red of them all is", "r is")), item("sky is", "Y", rephrases=("s is",))]
    whole = fit(new)
    groups: list[int] = []

    def small(lengths: Sequence[int], *, tokens: int = 0) -> list[list[int]]:
        found = group_by_length(lengths, tokens=30)
        groups.append(len(found))
        return found

    monkeypatch.setattr(step_outputs, "group_by_length", small)
    parts = fit(new)

    assert min(groups) > 1
    for name, tensor in tensors(whole).items():
        torch.testing.assert_close(tensors(parts)[name], tensor, atol=2e-4, rtol=1e-3)
    in_parts, in_one = parts.overlay.adapter.balance, whole.overlay.adapter.balance  # type: ignore[union-attr]
    assert in_parts.keys() == in_one.keys() and in_one
    for block, state in in_one.items():
        torch.testing.assert_close(in_parts[block].total, state.total)


def test_one_long_row_does_not_widen_many_short_ones_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_rows, "TOKENS_TOGETHER", 1_000)
    monkeypatch.setattr(protocol, "split_in_order", partial(split_in_order, tokens=500))
    given = rows(*[SHORT] * 60, LONG)

    found = prepare_rows(view_of(EMPTY), given, first_block=BLOCK, last=LastTokens(), hooks=Hooks())

    padded = sum(len(batch) * (batch.prefix.shape[1] + batch.hidden.shape[1]) for batch in found.batches)
    assert padded < 2 * sum(len(row) for row in given)


def test_selecting_from_several_batches_equals_selecting_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given, more = rows(SHORT, LONG, 2 * SHORT, 12, LONG - 9), rows(10, 30)

    def select(chosen: Sequence[int]) -> PrefilledRows:
        parts = [
            prepare_rows(view_of(EMPTY), some, first_block=BLOCK, last=LastTokens(), hooks=Hooks()) for some in (given, more)
        ]
        return join_rows(parts).select(chosen)

    chosen = [1, 6, 0, 3, 3]
    together = select(chosen)
    monkeypatch.setattr(prepared_rows, "TOKENS_TOGETHER", 50)
    apart = select(chosen)

    assert torch.equal(apart.suffix.ids, together.suffix.ids)
    assert torch.equal(apart.prefix, together.prefix)
    torch.testing.assert_close(apart.hidden, together.hidden, atol=1e-5, rtol=1e-4)
    for block, keys in together.keys.items():
        torch.testing.assert_close(apart.keys[block] * apart.prefix[:, None, :, None], keys * together.prefix[:, None, :, None])


def test_a_fit_can_be_cancelled_between_the_parts_of_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long window is checked after every step: a cancelled fit stops after one part of it."""
    asked: list[int] = []
    in_it = False

    def unanswered(dataset, chosen, interventions, judge, max_rows, hooks):  # type: ignore[no-untyped-def]
        nonlocal in_it

        def counted(seen, part):  # type: ignore[no-untyped-def]
            asked.append(len(part))
            return judge(seen, part)

        in_it = True
        return training_unanswered(dataset, chosen, interventions, counted, max_rows, hooks)

    training_unanswered = training_loop.find_unanswered
    monkeypatch.setattr("service.editors.baft.fit.find_unanswered", unanswered)

    with pytest.raises(FitCancelled):
        fit([item(prompt, "Z") for prompt in FACTS], hooks=Hooks(is_cancelled=lambda: in_it and bool(asked)), rows=2)

    assert asked == [2]
