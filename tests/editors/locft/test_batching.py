"""The rows of a training epoch, and their batches."""

from collections.abc import Sequence

import torch

from service.editors.locft.batching import Size, choose_epoch_rows, split_batches, split_batches_by_length, split_parts_by_length

LENGTHS = [5 + (number * 7) % 40 for number in range(1_000)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_length(seed: int) -> list[list[int]]:
    drawing = generator(seed)
    order = torch.randperm(len(LENGTHS), generator=drawing)
    return split_batches_by_length(order, 32, length=LENGTHS.__getitem__, bucket=4, generator=drawing)


def padding(cut: list[list[int]]) -> int:
    return sum(max(LENGTHS[row] for row in batch) * len(batch) - sum(LENGTHS[row] for row in batch) for batch in cut)


def visits(right: list[int], consolidated: list[int], count: int, *, revisit: float = 0.0, replay: float = 0.0) -> list[int]:
    masks = [torch.zeros(count, dtype=torch.bool) for _ in range(2)]
    for mask, rows in zip(masks, (right, consolidated), strict=True):
        mask[rows] = True
    return choose_epoch_rows(*masks, revisit=revisit, replay=replay, generator=generator()).tolist()


def test_every_row_is_in_one_batch_of_an_epoch():
    assert sorted(row for batch in by_length(0) for row in batch) == list(range(len(LENGTHS)))
    assert all(len(batch) <= 32 for batch in by_length(0))


def test_batches_by_length_hold_an_eighth_of_the_padding():
    plain = split_batches(torch.randperm(len(LENGTHS), generator=generator()), 32)

    assert padding(by_length(0)) < padding(plain) / 8


def test_batches_follow_from_the_seed_and_mix_anew_in_every_epoch():
    assert by_length(0) == by_length(0)
    assert {frozenset(batch) for batch in by_length(0)}.isdisjoint({frozenset(batch) for batch in by_length(1)})


def cut(chosen: Sequence[int], lengths: list[int], *, tokens: int, padding: int) -> list[list[int]]:
    return split_parts_by_length(
        chosen, lengths.__getitem__, lambda _: 1, limit=Size(tokens, targets=len(lengths)), padding=padding
    )


def test_parts_of_a_batch_hold_little_padding_and_leave_no_row_out():
    parts = cut(range(100), LENGTHS, tokens=300, padding=20)

    assert sorted(place for part in parts for place in part) == list(range(100))
    for part in parts:
        lengths = [LENGTHS[place] for place in part]
        assert max(lengths) * len(part) <= 300
        assert max(lengths) * len(part) - sum(lengths) <= 20
    assert len(parts) < 25


def test_rows_of_one_length_are_one_part_until_it_is_full():
    assert cut(range(8), [10] * 8, tokens=50, padding=0) == [[0, 1, 2, 3, 4], [5, 6, 7]]


def test_a_row_longer_than_the_limit_is_a_part_of_its_own():
    assert cut([0, 1], [500, 400], tokens=300, padding=1_000) == [[1], [0]]


def test_a_part_stays_within_its_limit_of_target_tokens():
    targets = [1, 4, 4, 2, 9, 1]

    parts = split_parts_by_length(
        range(6), ([10] * 6).__getitem__, targets.__getitem__, limit=Size(tokens=1_000, targets=8), padding=0
    )

    assert parts == [[0, 1], [2, 3], [4], [5]]


def test_wrong_rows_are_always_visited_and_right_rows_by_their_share():
    visited = visits(right=list(range(90)), consolidated=[], count=100, revisit=0.2)

    assert set(range(90, 100)) <= set(visited)
    assert len(visited) == 10 + 18


def test_an_epoch_of_a_minor_retrain_grows_with_the_new_rows_alone():
    few = visits(right=list(range(1_000)), consolidated=list(range(1_000)), count=1_010, replay=2.0)
    many = visits(right=list(range(50_000)), consolidated=list(range(50_000)), count=50_010, replay=2.0)

    assert len(few) == len(many) == 10 + 20


def test_visiting_everything_is_one_shuffle_of_all_rows():
    expected = torch.randperm(50, generator=generator()).tolist()

    assert visits(right=list(range(20)), consolidated=[], count=50, revisit=1.0) == expected
