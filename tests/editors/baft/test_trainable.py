"""The trained form of an intervention: counts, orthonormality, identity."""

import pytest
import torch

from service.editors.baft.settings import BaftSettings
from service.editors.baft.trainable import TrainableAdapter, initial_interventions, orthonormalise
from service.editors.depth_rule import block_at_share, scale_block
from service.editors.locft.published_locations import choose_block, published_kind
from service.editors.locft.settings import LocftSettings
from service.lm.intervention import Intervention


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def off_orthonormal(rotation: torch.Tensor) -> float:
    return float((rotation.double() @ rotation.double().T - torch.eye(len(rotation), dtype=torch.float64)).abs().max())


def train_a_little(trained: TrainableAdapter, steps: int) -> None:
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-2, weight_decay=0.0)
    hidden = torch.randn(8, 32, generator=seeded(1))
    for _ in range(steps):
        optimizer.zero_grad()
        sum(
            (each(hidden, torch.ones(8, dtype=torch.bool)) - 1).square().mean() for each in trained.with_gradients().values()
        ).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("preset", "width", "expected"),
    [("default", 4096, 606_256), ("default", 3072, 454_704), ("reft", 4096, 393_264), ("reft", 3072, 294_960)],
)
def test_parameter_counts_are_the_papers(preset, width, expected):
    settings = BaftSettings(preset=preset)
    trained = TrainableAdapter(initial_interventions(width, (9, 18, 24, 28), settings, seeded()))

    assert settings.parameters(width, 4) == expected
    assert sum(parameter.numel() for parameter in trained.parameters()) == expected


@pytest.mark.parametrize("gate", ["none", "subspace", "basis"])
def test_a_fresh_intervention_changes_nothing_bit_for_bit(gate):
    (intervention,) = initial_interventions(32, (0,), BaftSettings(gate=gate, rank=4), seeded()).values()
    hidden = torch.randn(2, 5, 32, generator=seeded(3))

    moved = intervention(hidden, torch.ones(2, 5, dtype=torch.bool))

    assert torch.equal(moved, hidden)


def test_the_random_start_of_pyreft_is_not_the_identity():
    (intervention,) = initial_interventions(32, (0,), BaftSettings(init="pyreft", rank=4), seeded()).values()
    hidden = torch.randn(3, 32, generator=seeded(3))

    assert not torch.allclose(intervention(hidden, torch.ones(3, dtype=torch.bool)), hidden, atol=1e-3)


def test_bases_stay_orthonormal_through_training_and_through_storing_and_training_again():
    trained = TrainableAdapter(initial_interventions(32, (1, 3), BaftSettings(rank=6), seeded()))

    train_a_little(trained, 20)
    stored = trained.without_gradients()
    again = TrainableAdapter(stored)
    train_a_little(again, 20)

    assert max(off_orthonormal(each.rotation) for each in stored.values()) < 1e-6
    assert max(off_orthonormal(each.rotation) for each in again.without_gradients().values()) < 1e-6


def test_training_continues_from_a_stored_intervention():
    trained = TrainableAdapter(initial_interventions(32, (1,), BaftSettings(rank=6), seeded()))
    train_a_little(trained, 5)
    (before,), (after,) = (
        trained.without_gradients().values(),
        TrainableAdapter(trained.without_gradients()).with_gradients().values(),
    )
    hidden = torch.randn(4, 32, generator=seeded(3))
    everywhere = torch.ones(4, dtype=torch.bool)

    assert torch.allclose(before(hidden, everywhere), after(hidden, everywhere), atol=1e-5)


def test_cholesky_qr_spans_the_same_rows_and_ignores_their_scale():
    free = torch.randn(4, 32, generator=seeded(), dtype=torch.float64)
    rotation = orthonormalise(free)

    assert off_orthonormal(rotation) < 1e-12
    assert torch.allclose(free @ rotation.T @ rotation, free, atol=1e-12)
    assert torch.allclose(orthonormalise(5 * free), rotation, atol=1e-12)


def test_a_gate_at_one_is_reft():
    (start,) = initial_interventions(16, (0,), BaftSettings(gate="none", rank=3, init="pyreft"), seeded()).values()
    hidden = torch.randn(5, 16, generator=seeded(2), dtype=torch.float64)
    rotation, source, bias = start.rotation.double(), start.source.double(), start.bias.double()
    reft = Intervention(rotation, source, bias, None, None)

    by_formula = torch.stack([h + rotation.T @ (source @ h + bias - rotation @ h) for h in hidden])

    assert torch.allclose(reft(hidden, torch.ones(5, dtype=torch.bool)), by_formula, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (6, (1, 3, 4)),
        (12, (3, 6, 8, 10)),
        (24, (7, 13, 18, 21)),
        (28, (8, 16, 21, 24)),
        (32, (9, 18, 24, 28)),
        (48, (14, 28, 37, 43)),
    ],
)
def test_other_depths_are_intervened_at_the_same_share(depth, blocks):
    assert BaftSettings(placement="published").blocks_of("llama", depth) == blocks


def test_published_blocks_follow_table_5_for_gemma_and_the_setting_for_all():
    assert BaftSettings(preset="paper").blocks_of("gemma", 28) == (18, 20, 22, 24)
    assert BaftSettings(blocks=(3, 1)).blocks_of("gemma", 28) == (1, 3)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(1, (0,)), (2, (0, 1)), (4, (2, 3)), (6, (4, 5)), (8, (6, 7)), (30, (26, 28)), (32, (28, 30)), (80, (71, 77))],
)
def test_late_blocks_are_two_at_nine_tenths_of_the_depth_and_near_its_end(depth, blocks):
    assert BaftSettings().blocks_of("llama", depth) == blocks


def test_margins_follow_table_5():
    assert BaftSettings().margins_of("llama", 32_000) == (0.05, 0.02)
    assert BaftSettings().margins_of("llama", 128_256) == (0.1, 0.05)
    assert BaftSettings().margins_of("gemma", 256_000) == (0.1, 0.05)


def test_locft_trains_the_papers_blocks_in_the_papers_models_and_other_models_late():
    assert (published_kind("llama"), choose_block("auto", "llama", 32, 4096)[0]) == ("down", 22)
    assert (published_kind("mistral"), choose_block("auto", "mistral", 32, 4096)[0]) == ("block", 23)
    assert (published_kind("qwen2"), choose_block("auto", "qwen2", 28, 3584)[0]) == ("down", 6)
    assert (published_kind("qwen2_moe"), choose_block("auto", "qwen2_moe", 24, 2048)[0]) == ("down", 20)
    assert (published_kind("gpt2"), choose_block("auto", "gpt2", 12, 768)[0]) == ("down", 10)


def test_shares_of_the_depth_are_rounded_half_up_and_stay_inside_the_model():
    assert [block_at_share(0.72, depth) for depth in (1, 2, 4, 8, 32)] == [0, 0, 2, 5, 22]
    assert [scale_block(6, 28, depth) for depth in (80, 64, 48)] == [19, 15, 11]


def test_a_preset_fills_missing_settings():
    assert BaftSettings(preset="paper").replay == 0
    assert BaftSettings(preset="paper", replay=7).replay == 7
    assert BaftSettings(preset="reft").gate == "none"
    assert LocftSettings(preset="paper").batch == 100
