"""A pair of low rank: its arithmetic, its file, and the places that read weights of an overlay."""

from pathlib import Path

import pytest
import torch

from service.domain.errors import Corrupt, Refused, Unreadable
from service.editors.lora.low_rank import LowRank
from service.editors.registry import list_methods
from service.lm import checkpoint, component_kinds
from service.lm.checkpoint import from_bytes, load, save, to_bytes
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.component_kinds import find_component, register_component
from service.lm.overlay import Overlay, digest_of, make_view
from service.lm.weights import read_weight
from service.runtime.editors import relative_distance
from tests.builders import make_base

NAME = "model.layers.1.mlp.down_proj.weight"


def make_pair(*shape: int, rank: int = 2, scale: float = 0.5, seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    *stack, rows, columns = shape
    return LowRank(
        torch.randn(*stack, rows, rank, generator=generator), torch.randn(*stack, rank, columns, generator=generator), scale
    )


def base_pair(scale: float = 0.5) -> LowRank:
    return make_pair(*read_weight(make_base("llama").model, NAME).shape, scale=scale)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_a_merged_weight_is_the_base_s_plus_the_scaled_product(shape: tuple[int, ...]) -> None:
    pair, own = make_pair(*shape), torch.randn(shape, generator=torch.Generator().manual_seed(1))

    expected = own.double() + 0.5 * torch.einsum("...mr,...rn->...mn", pair.left.double(), pair.right.double())
    torch.testing.assert_close(pair.merge(own).double(), expected, rtol=1e-5, atol=1e-6)
    assert pair.shape == own.shape


def test_a_merged_weight_of_a_16_bit_base_is_computed_in_32_bits() -> None:
    assert make_pair(4, 4).merge(torch.zeros(4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_view_with_a_pair_answers_as_one_with_the_merged_weight() -> None:
    base, pair = make_base("llama"), base_pair()
    ids = torch.arange(1, 9)[None]

    merged = make_view(base, {NAME: pair.merge(read_weight(base.model, NAME))})

    assert torch.equal(make_view(base, {NAME: pair}).model(ids).logits, merged.model(ids).logits)
    assert not torch.equal(merged.model(ids).logits, base.model(ids).logits)


def test_a_pair_of_another_shape_than_the_weight_is_refused() -> None:
    with pytest.raises(Refused, match="shape"):
        make_view(make_base("llama"), {NAME: make_pair(3, 4)})


def test_a_pair_comes_back_from_its_file_bit_for_bit(tmp_path: Path) -> None:
    pair = base_pair()

    overlay = load(CheckpointFolder(tmp_path), save(Overlay({NAME: pair}), CheckpointFolder(tmp_path)))

    found = overlay.tensors[NAME]
    assert isinstance(found, LowRank)
    assert torch.equal(found.left, pair.left) and torch.equal(found.right, pair.right) and found.scale == pair.scale


def test_a_pair_and_a_whole_tensor_may_lie_in_one_file(tmp_path: Path) -> None:
    other = torch.ones(3, 2)

    overlay = load(CheckpointFolder(tmp_path), save(Overlay({NAME: base_pair(), "whole": other}), CheckpointFolder(tmp_path)))

    assert set(overlay.tensors) == {NAME, "whole"} and torch.equal(overlay.tensors["whole"], other)


def test_views_of_pairs_are_shared_only_if_their_numbers_are_the_same() -> None:
    assert digest_of({NAME: base_pair()}) == digest_of({NAME: base_pair()})
    assert digest_of({NAME: base_pair()}) != digest_of({NAME: base_pair(scale=0.25)})
    assert digest_of({NAME: base_pair()}) != digest_of({NAME: make_pair(*base_pair().shape, seed=3)})


def test_the_distance_of_overlays_counts_a_pair_as_its_merged_weight() -> None:
    base, pair = make_base("llama"), base_pair()
    own = read_weight(base.model, NAME)
    whole = Overlay({NAME: pair.merge(own)})

    assert relative_distance(base.model, Overlay({NAME: pair}), whole) == 0.0
    assert relative_distance(base.model, Overlay({NAME: pair}), Overlay()) == pytest.approx(
        float((pair.merge(own) - own).norm() / own.norm()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 2), (3, 5)), ((2, 4, 2), (3, 2, 5)), ((4,), (2, 5))],
    ids=["no product", "stacks of different heights", "a vector"],
)
def test_matrices_that_do_not_belong_together_are_a_damaged_file(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    data = to_bytes(Overlay({NAME: LowRank(torch.zeros(left), torch.zeros(right), 1.0)}))

    with pytest.raises(Corrupt):
        from_bytes(data, checkpoint.hashlib.sha256(data).hexdigest())


def test_a_component_of_an_unknown_kind_is_unreadable_and_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = save(Overlay({NAME: base_pair()}), CheckpointFolder(tmp_path))
    monkeypatch.delitem(component_kinds._places, "low_rank")

    with pytest.raises(Unreadable, match="low_rank"):
        load(CheckpointFolder(tmp_path), digest)


def test_a_file_with_a_component_has_a_format_that_an_older_release_names_unknown() -> None:
    assert b'\\"format\\":2' in to_bytes(Overlay({NAME: base_pair()}))
    assert b'\\"format\\":1' in to_bytes(Overlay({NAME: torch.zeros(2, 2)}))


def test_a_kind_of_components_is_registered_once_and_found_by_its_place() -> None:
    assert list_methods() and find_component("low_rank") is LowRank
    register_component("low_rank", "service.editors.lora.low_rank:LowRank")

    with pytest.raises(Refused, match="low_rank"):
        register_component("low_rank", "elsewhere:Other")
    with pytest.raises(Refused):
        register_component("Low Rank", "elsewhere:Other")
