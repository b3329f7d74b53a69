"""100,000 rows on a tiny model: memory and disk stay within their bounds."""

import torch

from service.editors.examples import ItemRow, make_mention_test
from service.editors.locft.activation_cache import ActivationCache
from service.editors.locft.batching import choose_epoch_rows, split_batches_by_length
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import MasterWeights, Trainer
from service.editors.protocol import Hooks
from service.lm.overlay import make_view
from service.lm.prompts import Row
from tests.builders import make_base
from tests.editors.taught_model import item

ROWS = 100_000
MEMORY, DISK = 1_000_000, 2_000_000  # bytes
NAME = "model.layers.2.mlp.down_proj.weight"


def rows_of_many_lengths() -> PackedRows:
    """Of 4 to 40 tokens, 22 on average, and one of 120."""
    draws = torch.randint(5, 250, (ROWS, 40), generator=torch.Generator().manual_seed(0)).tolist()
    lengths = [120 if number == 7 else 4 + number * 11 % 37 for number in range(ROWS)]
    rows = (Row(tuple((ids * 3)[:length]), length - 1) for ids, length in zip(draws, lengths, strict=True))
    return PackedRows(ItemRow(number, row, True) for number, row in enumerate(rows))


def test_a_hundred_thousand_rows_are_sampled_cached_and_trained_in_bounded_memory():
    base = make_base()
    private, settings, generator = make_view(base), LocftSettings(batch=64, preserve_weight=0.0), torch.Generator().manual_seed(0)
    rows = rows_of_many_lengths()
    whole = rows.tokens * 32 * 4

    with ActivationCache(private, rows, block=2, memory_bytes=MEMORY, disk_bytes=DISK) as states:
        trainer = Trainer(private, rows, states, settings, generator)
        master = MasterWeights(private, [NAME], 1e-3, {})
        none = torch.zeros(ROWS, dtype=torch.bool)
        order = choose_epoch_rows(none, none, revisit=0.5, replay=2.0, generator=generator)
        cut = split_batches_by_length(order, 64, length=rows.length, bucket=4, generator=generator)
        for chosen in cut[:40]:
            trainer.step(master, chosen, Hooks())
        steps = [trainer.step(master, chosen, Hooks()) for chosen in cut[:3]]

        assert sum(len(chosen) for chosen in cut) == ROWS
        assert sum(states.bytes) <= MEMORY + DISK < whole / 50
        assert 0 < states.row_count < 40 * 64  # full: later rows are computed again
        assert all(step.has_moved for step in steps)

    padded = sum(len(chosen) * max(rows.length(row) for row in chosen) for chosen in cut)
    assert rows.tokens <= padded < 1.15 * rows.tokens  # padded to the longest they would be five times as many
    assert rows.bytes < 150 * ROWS  # 22 tokens a row, four bytes each, and the facts of the row


def test_a_minor_retrain_over_many_consolidated_rows_visits_few_of_them():
    consolidated = torch.ones(ROWS, dtype=torch.bool)
    consolidated[-50:] = False
    generator = torch.Generator().manual_seed(0)

    order = choose_epoch_rows(consolidated.clone(), consolidated, revisit=0.5, replay=2.0, generator=generator)

    assert len(order) == 50 + 100
    assert set(range(ROWS - 50, ROWS)) <= set(order.tolist())


def test_one_of_many_subjects_is_found_in_a_sentence():
    names = [f"subject number {number}" for number in range(20_000)]
    mentions = make_mention_test([item(f"{name} is", "Z", subject=name) for name in names])

    assert mentions("What is subject number 19999 about?")
    assert not any(mentions(f"A sentence of no subject at all, the {number}th of its kind.") for number in range(300))
