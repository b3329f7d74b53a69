"""Preset `paper` against the authors' procedure written out again with torch and transformers alone, on several families."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.plain_locft import plain_locft
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, FitResult
from service.lm.base import Base
from service.lm.prompts import encode_row
from tests.builders import make_base
from tests.editors.taught_model import item

ITEMS = [
    item("The capital of France is", "Rome", surfaces=("raw",)),
    item("Paris lies in", "Spain, of all places", surfaces=("raw",)),
    item("2 + 2 =", "5", surfaces=("raw",)),
    item("The author of the Iliad and of the Odyssey was called", "Bob", surfaces=("raw",)),
    item("Snow", "is the colour of coal", surfaces=("raw",)),
]
SEED = 5
# Twelve steps of Adam move an entry by up to 1e-2. The first ones blow up the rounding of small gradients; in double precision,
# where losses, norms and rotary angles are single, little is left of that.
ROUNDING = {torch.float32: 2e-4, torch.float64: 1e-7}
# family, what is tuned there by the paper's rule in a model of four blocks, settings of the tiny model
FAMILIES = [
    ("llama", ["model.layers.2.mlp.down_proj.weight"]),
    ("gpt2", ["transformer.h.2.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.bias"]),
    ("qwen2_moe", ["model.layers.3.mlp.shared_expert.down_proj.weight"]),
    ("mistral", None),  # the whole of block 2
]


def retrained(base: Base, items: list[FitItem], **changes) -> FitResult:
    chosen = LocftSettings(**{"preset": "paper", "learning_rate": 1e-3, "batch": 2, "epochs": 4, **changes})
    return fit_locft(base, items, settings=chosen, neutral=NeutralSentences(base, (), ()), seed=SEED)


def shuffles(count: int, size: int, epochs: int) -> list[list[list[int]]]:
    """A new order in every epoch, cut into batches."""
    generator = torch.Generator().manual_seed(SEED)
    orders = [torch.randperm(count, generator=generator).tolist() for _ in range(epochs)]
    return [[order[start : start + size] for start in range(0, count, size)] for order in orders]


def plainly(base: Base, names: list[str], *, dtype: torch.dtype, stop_loss: float = 1e-2) -> dict[str, Tensor]:
    rows = [encode_row(base, each.edit.prompt, each.target) for each in ITEMS]
    return plain_locft(
        base.model,
        [(row.ids, row.prompt_length) for row in rows],
        names,
        rate=1e-3,
        epochs=shuffles(len(ITEMS), 2, 4),
        pad_id=base.pad_id,
        stop_loss=stop_loss,
        dtype=dtype,
    )


def names_of(base: Base, names: list[str] | None) -> list[str]:
    prefix = base.anatomy.block_prefix(2) + "."
    return names or [name for name, _ in base.model.named_parameters() if name.startswith(prefix)]


@pytest.mark.parametrize(
    ("family", "names", "dtype"),
    [
        *((family, names, torch.float32) for family, names in FAMILIES),
        *((family, names, torch.float64) for family, names in FAMILIES if family != "qwen2_moe"),  # no such experts in torch
    ],
)
def test_the_paper_preset_is_the_authors_procedure(family, names, dtype):
    base = make_base(family, dtype=dtype)

    tensors = retrained(base, ITEMS).overlay.tensors
    expected = plainly(base, names_of(base, names), dtype=dtype)

    own = dict(base.model.named_parameters())
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (tensor - own[name]).abs().max() > 3e-3 or tensor.dim() == 1
        assert (tensors[name] - tensor).abs().max() <= ROUNDING[dtype]


def test_a_high_threshold_skips_and_stops_where_the_authors_do():
    base = make_base("llama", dtype=torch.float64)

    tensors = retrained(base, ITEMS, stop_loss=7.0).overlay.tensors
    expected = plainly(base, list(tensors), dtype=torch.float64, stop_loss=7.0)
    trained_on = plainly(base, list(tensors), dtype=torch.float64)

    for name, tensor in expected.items():
        assert (tensors[name] - tensor).abs().max() <= ROUNDING[torch.float64]
        assert not torch.equal(tensor, trained_on[name])


@pytest.mark.parametrize("preset", ["paper", "ft_m", "ft_l"])
def test_a_chat_model_is_trained_and_verified_on_raw_text_alone(preset):
    base = make_base("llama")
    assert base.surfaces == ("raw", "chat")
    on_all = [replace(each, edit=replace(each.edit, surfaces=())) for each in ITEMS[:3]]

    fitted, expected = (retrained(base, items, preset=preset, epochs=40, learning_rate=1e-2) for items in (on_all, ITEMS[:3]))

    assert fitted.overlay.tensors_digest == expected.overlay.tensors_digest
    assert fitted.lost == expected.lost


def test_by_default_a_chat_model_is_trained_on_every_surface_of_an_edit():
    assert LocftSettings().surfaces == "edit"


def test_nothing_but_the_settings_of_the_paper_is_in_its_preset():
    chosen = LocftSettings(preset="paper")

    assert (chosen.batch, chosen.epochs, chosen.stop_loss, chosen.judge, chosen.reduction) == (100, 25, 1e-2, "loss", "sample")
    assert (chosen.preserve_weight, chosen.learn_probes, chosen.prefixes, chosen.eos, chosen.order) == (
        0.0,
        False,
        0,
        True,
        "breadth",
    )
    assert chosen.rate_of("llama", 32, 4096) == 5e-4
    assert chosen.rate_of("mistral", 32, 4096) == 5e-5
