"""Rows of one decoding under different adapters: each is what it is alone, by whole forward passes of one row."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.last_tokens import LastTokens
from service.lm.overlay import View, compute_logits, make_view
from service.lm.prompts import LAST_PROMPT_TOKENS, Row, collate
from tests.builders import make_adapter, make_base, make_rows

STEPS = 5
ROUNDING = 1e-5  # how far cached, padded logits may be from uncached, unpadded ones in fp32; measured: below 4e-6
PROMPTS = (6, 1, 12, 2, 3, 9, 6, 4)


def eight_adapters() -> list[Adapter | None]:
    """Of eight versions: other ranks, other blocks, other numbers of intervened tokens, and two without an adapter."""
    return [
        None,
        make_adapter(seed=1),
        replace(make_adapter((0, 3), seed=2, rank=5), last=LastTokens(1)),
        make_adapter((2,), seed=3, rank=1),
        None,
        replace(make_adapter((3,), seed=5, rank=8), last=LastTokens(8)),
        make_adapter((0, 1, 2, 3), seed=6, rank=2),
        make_adapter(seed=7),
    ]


def rows_of(base: Base) -> list[Row]:
    return make_rows(base, [(prompt, STEPS + 1) for prompt in PROMPTS])


def decode(view: View, adapters: Sequence[Adapter | None], rows: Sequence[Row]) -> Tensor:
    """The logits (B, STEPS + 1, V) of rows whose tokens are known beforehand."""
    decoding = Decoding(view, adapters, [row.prompt_ids for row in rows])
    seen = [decoding.logits]
    for step in range(STEPS):
        decoding.feed(torch.tensor([row.target_ids[step] for row in rows]))
        seen.append(decoding.logits)
    return torch.stack(seen, dim=1)


def alone(view: View, adapter: Adapter | None, row: Row) -> Tensor:
    """The logits (STEPS + 1, V) of one row, without cache, padding or other rows."""
    last, interventions = (adapter.last, adapter.interventions) if adapter else (LAST_PROMPT_TOKENS, {})
    return compute_logits(view, collate(view.base, [row], last=last), interventions)[0, row.prompt_length - 1 : -1]


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "gpt_neo", "qwen2_moe"])
def test_rows_of_eight_versions_decoded_together_are_each_what_they_are_alone(family: str) -> None:
    base, adapters = make_base(family), eight_adapters()
    view, rows = make_view(base), rows_of(base)

    together = decode(view, adapters, rows)

    for row, adapter, logits in zip(rows, adapters, together, strict=True):
        torch.testing.assert_close(logits, alone(view, adapter, row), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_other_versions_beside_a_row_change_no_bit_of_it_at_equal_shapes(family: str) -> None:
    base, adapters = make_base(family), eight_adapters()
    view, rows, filler = make_view(base), rows_of(base), make_adapter((1,), seed=9, rank=4)

    together = decode(view, adapters, rows)

    for number, adapter in enumerate(adapters):
        beside = decode(view, [adapter if place == number else filler for place in range(8)], rows)
        assert torch.equal(together[number], beside[number])


def test_rows_keep_their_adapters_when_rows_leave_and_join() -> None:
    base, adapters = make_base(), eight_adapters()
    view, rows = make_view(base), rows_of(base)
    wanted = [alone(view, adapter, row) for adapter, row in zip(adapters, rows, strict=True)]
    prompts = [row.prompt_ids for row in rows]

    decoding = Decoding(view, adapters[:4], prompts[:4])
    decoding.feed(torch.tensor([row.target_ids[0] for row in rows[:4]]))
    decoding.join(Decoding(view, adapters[4:], prompts[4:]))
    decoding.keep([6, 0, 2, 5])
    decoding.feed(torch.tensor([rows[6].target_ids[0], rows[0].target_ids[1], rows[2].target_ids[1], rows[5].target_ids[0]]))
    mixed = decoding.logits
    decoding.keep([2])
    decoding.feed(torch.tensor([rows[2].target_ids[2]]))
    decoding.join(Decoding(view, [None], prompts[:1]))

    expected = torch.stack([wanted[6][1], wanted[0][2], wanted[2][2], wanted[5][1]])
    torch.testing.assert_close(mixed, expected, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(decoding.logits, torch.stack([wanted[2][3], wanted[0][0]]), rtol=0, atol=ROUNDING)


def test_a_version_of_numbers_that_are_not_finite_spoils_its_own_rows_only() -> None:
    base, adapters = make_base(), eight_adapters()
    view, rows = make_view(base), rows_of(base)
    broken = make_adapter(seed=7)
    broken.interventions[1].bias.fill_(float("nan"))

    together = decode(view, [*adapters[:7], broken], rows)

    assert together[7].isnan().all()
    for number in range(7):
        torch.testing.assert_close(together[number], alone(view, adapters[number], rows[number]), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "gpt_neo"])
def test_rows_that_branch_off_one_row_are_each_what_they_are_alone(family: str) -> None:
    base = make_base(family)
    view, rows = make_view(base), make_rows(base, [(9, STEPS + 1)] * 3)
    shared = rows[0].prompt_ids[:6]
    rows = [replace(row, ids=(*shared, *row.ids[6:])) for row in rows]
    trunk = Decoding(view, [None], [shared])

    for _ in range(2):  # the second time from the same row
        branched = trunk.branch([row.prompt_ids[6:] for row in rows])
        seen = [branched.logits]
        for step in range(STEPS):
            branched.feed(torch.tensor([row.target_ids[step] for row in rows]))
            seen.append(branched.logits)

        for row, logits in zip(rows, torch.stack(seen, dim=1), strict=True):
            torch.testing.assert_close(logits, alone(view, None, row), atol=ROUNDING, rtol=0)
    assert len(trunk) == 1
