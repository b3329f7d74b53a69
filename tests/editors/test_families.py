"""Random models of the newer families are edited, retrained and exported with the methods as they are, or a refusal says what
helps. Other tests fit the older families.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.domain.errors import Refused
from service.editors.baft.fit import fit_baft
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from service.editors.lora.settings import LoraSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem
from service.lm.base import Base
from service.lm.export import write_export
from service.lm.load_errata import load
from service.lm.overlay import EMPTY, Overlay, make_view
from service.lm.prompts import encode_row
from service.lm.scoring import greedy_matches
from tests.builders import EXPERTS_ALONE, make_base
from tests.editors.taught_model import item, settings

ITEMS = [item("Paris lies in", "Rome", surfaces=("raw",)), item("Snow lies in", "Bonn", surfaces=("raw",))]
# Published models that a family's tiny model differs from in more than size: the family, and what they have.
PUBLISHED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Phi-4-mini": (
        "phi3",
        {
            "tie_word_embeddings": True,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "short_factor": [1.0] * 3,
                "long_factor": [2.0] * 3,
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "Gemma-4 with experts": (
        "gemma4_text",
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16, "attention_k_eq_v": True},
    ),
}
NEWER = ("gemma3_text", "gemma4_text", "olmo2", "smollm3", "llama4_text", *EXPERTS_ALONE)
CASES = {**{family: (family, {}) for family in NEWER}, **PUBLISHED}


def says(base: Base, overlay: Overlay, items: list[FitItem]) -> bool:
    rows = [encode_row(base, each.edit.prompt, each.target) for each in items]
    return all(greedy_matches(make_view(base, overlay.tensors), rows, overlay.adapter))


def edit(base: Base, items: list[FitItem]) -> Overlay:
    """The overlay of a fit with BaFT."""
    nothing = NeutralSentences(base, (), ())
    return fit_baft(base, lambda _: make_view(base), EMPTY, items, [], settings=settings(), neutral=nothing, seed=1).overlay


def retrain(base: Base, items: list[FitItem], **changes: Any) -> Overlay:
    """The overlay of a fit with LocFT-BF."""
    chosen = LocftSettings(learning_rate=1e-2, batch=2, epochs=60, cooldown=0, **changes)
    return fit_locft(base, items, settings=chosen, neutral=NeutralSentences(base, (), ()), seed=1).overlay


def plain_answers(model: Any, tokenizer: Any, items: list[FitItem]) -> list[str]:
    """What transformers' own `generate` says."""
    said = []
    for each in items:
        ids = tokenizer(each.edit.prompt, return_tensors="pt").input_ids
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        said.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return said


@pytest.mark.parametrize("case", CASES)
def test_an_edit_is_live_and_exported_with_its_loader(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    base = make_base(family, **changes)

    overlay = edit(base, ITEMS)

    assert not says(base, EMPTY, ITEMS) and says(base, overlay, ITEMS)
    write_export(base, overlay, tmp_path / "out", manifest={})
    assert plain_answers(*load(tmp_path / "out"), ITEMS) == ["Rome", "Bonn"]


@pytest.mark.parametrize("case", CASES)
def test_a_retrain_is_live_and_its_export_is_loaded_by_plain_transformers(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    base = make_base(family, **changes)

    overlay = retrain(base, ITEMS, kind="block")  # all that a block has; a random model is hard to teach by one matrix

    assert says(base, overlay, ITEMS)
    write_export(base, overlay, tmp_path / "out", manifest={})
    model, tokenizer = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForCausalLM, AutoTokenizer))
    assert plain_answers(model, tokenizer, ITEMS) == ["Rome", "Bonn"]


@pytest.mark.parametrize("group", [LocftSettings, LoraSettings])
@pytest.mark.parametrize("family", EXPERTS_ALONE)
def test_experts_without_a_shared_one_are_refused_with_the_setting_that_helps(
    group: Callable[..., LocftSettings], family: str
) -> None:
    base = make_base(family)

    with pytest.raises(Refused, match=rf"{family} have no shared expert.*Set {group().group}\.kind to .* attention") as caught:
        find_tuned_location(base.anatomy, group())
    assert caught.value.field == f"{group().group}.kind"

    overlay = retrain(base, ITEMS, kind="attention")
    assert says(base, overlay, ITEMS)
