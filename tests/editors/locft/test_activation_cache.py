"""The activation cache: equal states from memory, disk and recomputation, within the budgets, without leftover files."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch

from service.domain.errors import Unavailable
from service.editors.locft.activation_cache import ActivationCache
from service.editors.locft.packed_rows import PackedRows
from service.lm.cached_step import compute_block_inputs
from service.lm.overlay import View, compute_target_logits, make_view
from service.lm.prompts import collate
from tests.builders import make_base, make_rows
from tests.editors.locft.retrains import EDITS, fit

TOKEN_BYTES = 32 * 4  # the tiny model's width in fp32
SHAPES = [(3, 1), (9, 3), (4, 1), (12, 2), (5, 5), (3, 1)]


def store_of(view: View) -> PackedRows:
    return PackedRows(kept=make_rows(view.base, SHAPES))


def cache(view: View, rows: PackedRows, *, memory_tokens: int = 0, disk_tokens: int = 0) -> ActivationCache:
    return ActivationCache(view, rows, block=2, memory_bytes=memory_tokens * TOKEN_BYTES, disk_bytes=disk_tokens * TOKEN_BYTES)


def test_memory_and_disk_give_the_same_bytes():
    in_memory, on_disk = fit(EDITS, cache_mb=1), fit(EDITS, cache_mb=0, cache_disk_mb=1)

    assert in_memory.overlay.tensors_digest == on_disk.overlay.tensors_digest


def test_recomputation_gives_the_same_bytes_for_batches_of_the_same_shape():
    alike = {"batch": 8, "revisit": 1.0, "preserve_weight": 0.0, "epochs": 20}  # all rows in every batch
    kept, again = fit(EDITS, **alike), fit(EDITS, **alike, cache_mb=0, cache_disk_mb=0)

    assert kept.overlay.tensors_digest == again.overlay.tensors_digest


def test_recomputation_gives_the_same_to_rounding_for_any_shape():
    kept, again = (fit(EDITS, epochs=3, cache_mb=size, cache_disk_mb=0).overlay.tensors for size in (1, 0))

    for name, tensor in kept.items():
        # Twelve steps of Adam at 2e-2; the bound is that of the oracle's test, scaled by the rate.
        assert (again[name] - tensor).abs().max() < 4e-3


@pytest.mark.parametrize("room", [{"memory_tokens": 100}, {"disk_tokens": 100}, {"memory_tokens": 13, "disk_tokens": 16}, {}])
def test_every_row_is_read_back_unchanged_from_every_tier(room):
    view = make_view(make_base())
    rows = store_of(view)

    with cache(view, rows, **room) as states:
        for chosen in ([0, 1], [2, 3, 4], [1, 5, 0], [5, 4, 3, 2, 1, 0]):
            inputs = states.batch(chosen)
            for place, index in enumerate(chosen):
                length = rows.length(index)
                alone = compute_block_inputs(view, [rows[index]], block=2).hidden[0]
                assert torch.allclose(inputs.hidden[place, : length - 1], alone, atol=1e-5)  # less the last token
                assert inputs.batch.ids[place, :length].tolist() == list(rows[index].ids)
                assert not inputs.hidden[place, length - 1 :].any()


@pytest.mark.parametrize(
    ("memory_tokens", "disk_tokens", "count"),
    [(100, 0, 6), (0, 100, 6), (0, 0, 0), (14, 0, 2), (3, 11, 2)],  # rows of 3, 3, 4, 9, 11 and 13 tokens go in, less the last
)
def test_the_cache_stays_within_its_budgets(memory_tokens, disk_tokens, count):
    view = make_view(make_base())
    rows = store_of(view)

    with cache(view, rows, memory_tokens=memory_tokens, disk_tokens=disk_tokens) as states:
        states.batch(range(len(rows)))

        assert states.row_count == count
        assert states.bytes[0] <= memory_tokens * TOKEN_BYTES
        assert states.bytes[1] <= disk_tokens * TOKEN_BYTES
        assert sum(states.bytes) <= 2 * rows.tokens * TOKEN_BYTES


def test_a_long_row_takes_no_room_of_other_rows():
    view = make_view(make_base())
    rows = PackedRows(kept=make_rows(view.base, [(90, 10), *[(3, 1)] * 50]))

    with cache(view, rows, memory_tokens=300) as states:
        states.batch(range(len(rows)))

        assert states.row_count == len(rows)  # 300 tokens; padded to the longest they would be 5,100


def test_the_file_has_no_name_while_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    view = make_view(make_base())

    with cache(view, store_of(view), disk_tokens=100) as states:
        assert states.bytes[1] > 0
        assert list(tmp_path.iterdir()) == []  # so nothing is left, however the process ends


def test_the_file_has_no_name_during_the_reservation_of_its_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reserve, named = os.posix_fallocate, []
    monkeypatch.setattr(os, "posix_fallocate", lambda *room: named.extend(tmp_path.iterdir()) or reserve(*room))
    view = make_view(make_base())

    with cache(view, store_of(view), disk_tokens=100) as states:
        assert states.bytes[1] > 0

    assert named == []  # reserving takes long, and may be where the process is killed


def test_the_file_is_closed_with_its_tensor(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    view = make_view(make_base())
    files = Path("/proc/self/fd")

    def opened() -> int:
        return sum(str(each.readlink()).startswith(str(tmp_path)) for each in files.iterdir() if each.is_symlink())

    with cache(view, store_of(view), disk_tokens=100) as states:
        states.batch(range(6))
        assert opened() == 1
    assert opened() == 0


def test_a_full_disk_is_refused_before_training_begins(monkeypatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(Unavailable, match=r"locft\.cache_disk_mb"):
        fit(EDITS, cache_mb=0)


def test_rows_are_the_same_after_packing():
    base = make_base()
    rows = make_rows(base, SHAPES)

    packed = PackedRows(kept=rows)

    assert list(packed) == rows
    assert packed[1:3] == rows[1:3]
    assert packed.tokens == sum(len(row.ids) for row in rows)


@pytest.mark.parametrize("room", [{"memory_tokens": 200}, {"disk_tokens": 200}, {"memory_tokens": 60}, {}])
def test_base_predictions_are_read_back_unchanged_from_every_tier(room):
    view = make_view(make_base())
    rows = store_of(view)

    with cache(view, rows, **room) as states:
        for chosen in ([0, 1], [2, 3, 4], [1, 5, 0], [5, 4, 3, 2, 1, 0]):
            logits = states.base_logits(chosen, states.batch(chosen))
            batch = collate(view.base, [rows[index] for index in chosen])
            assert torch.allclose(logits, compute_target_logits(view, batch), atol=1e-4)
