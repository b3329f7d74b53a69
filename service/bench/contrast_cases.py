"""The LocFT-BF paper's contrasts, and one of the consolidating methods, as lists of cases. A case is one training under its own
settings.

Learning rates are the default's, raised for narrow models, since the papers' rates are for widths of thousands. A step of the
paper has 100 of 3,000 edits; a step here has 16 of a hundred, so that a training epoch has several steps, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.editors.locft.published_locations import choose_block
from service.editors.locft.settings import LocftSettings
from service.editors.lora.settings import LoraSettings
from service.editors.presets import WithPresets
from service.editors.registry import find_method, names_of
from service.lm.blocks import Anatomy

BATCH = 16
# The paper's Table 1 holds the batch at one edit and changes the order alone.
ONE_BY_ONE: Mapping[str, Any] = {"order": "breadth", "bucket": 0, "revisit": 1.0}
# Every surface is measured, so all are trained. The presets of published procedures train raw text alone.
EVERY_SURFACE: Mapping[str, Any] = {"surfaces": "edit"}
_SIZES = (1, 4, 16, 64)
_RANKS = (4, 8, 32, 64)
_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the number of edits of the other contrasts


@dataclass(frozen=True)
class Case:
    """A row of a table. In the plot, cases with the same `line` are a curve over `x`, and cases without an `x` are points."""

    name: str
    settings: WithPresets  # of a consolidating method
    edits: int
    line: str
    x: float | None = None


def pipeline_cases(n: int, anatomy: Anatomy) -> list[Case]:
    """Table 1: each method edit by edit to convergence, and in epochs over all edits; LocFT-BF in mini-batches."""
    cases = []
    for preset, label in (("ft_l", "FT-L"), ("ft_m", "FT-M")):
        for order, overrides in (("depth-first", {}), ("breadth-first", ONE_BY_ONE)):
            cases.append(Case(f"{label}, {order}", _fine_tuning_settings(preset, **overrides), n, label))
    depth_first = _paper_settings(anatomy, order="depth", batch=1)
    return [
        *cases,
        Case("LocFT-BF's trainer, depth-first", depth_first, n, "LocFT-BF"),
        Case("LocFT-BF, preset paper", _paper_settings(anatomy), n, "LocFT-BF"),
        Case("LocFT-BF, default", LocftSettings(), n, "LocFT-BF"),
    ]


def batch_cases(n: int, anatomy: Anatomy) -> list[Case]:
    """Figure 4: FT-M in epochs over all edits, with more edits in one step."""
    sizes = [size for size in _SIZES if size < n] + [n]
    line = "FT-M, breadth-first"
    return [
        Case(f"{size} edits a step", _fine_tuning_settings("ft_m", **ONE_BY_ONE, batch=size), n, line, size) for size in sizes
    ]


def edit_count_cases(n: int, anatomy: Anatomy) -> list[Case]:
    """Figure 6: LocFT-BF with more and more edits."""
    counts = [max(1, round(share * n)) for share in _SHARES]
    presets = {"LocFT-BF, preset paper": _paper_settings(anatomy), "LocFT-BF, default": LocftSettings()}
    return [
        Case(f"{name}, {count} edits", settings, count, name, count) for name, settings in presets.items() for count in counts
    ]


def location_cases(n: int, anatomy: Anatomy) -> list[Case]:
    """Section 3 and Table 8: one module of one block, larger parts of a block, several blocks, and the whole model."""
    depth = anatomy.depth
    block, _ = choose_block("published", anatomy.family, depth, anatomy.width)
    locations: Mapping[str, dict[str, Any]] = {
        "down-projection of one block": {},
        "up-projection of one block": {"kind": "up"},
        "MLP of one block": {"kind": "mlp"},
        "attention of one block": {"kind": "attention"},
        "one whole block": {"kind": "block"},
        "down-projections of the upper half": {"blocks": tuple(range(depth // 2, depth))},
        "down-projections of all blocks": {"blocks": tuple(range(depth))},
        "three whole blocks": {"kind": "block", "blocks": tuple(range(max(0, block - 2), block + 1))},
        "the whole model": {"kind": "model"},
    }
    return [Case(name, _paper_settings(anatomy, **overrides), n, name) for name, overrides in locations.items()]


def method_cases(n: int, anatomy: Anatomy) -> list[Case]:
    """Every consolidating method with its defaults; and LoRA with pairs of other ranks."""
    methods = [find_method(name) for name in names_of("consolidating")]
    defaults = [Case(f"{method.title}, default", method.settings(), n, method.title) for method in methods]
    ranks = [Case(f"LoRA, rank {rank}", LoraSettings(rank=rank), n, "LoRA, by rank", rank) for rank in _RANKS]
    return [*defaults, *ranks]


def _fine_tuning_settings(preset: str, **overrides: Any) -> LocftSettings:
    return LocftSettings.model_validate({"preset": preset, **EVERY_SURFACE, **overrides})


def _paper_settings(anatomy: Anatomy, **overrides: Any) -> LocftSettings:
    """The published procedure, with batch size and rate for a small model."""
    rate = LocftSettings.model_validate(overrides).rate_of(anatomy.family, anatomy.depth, anatomy.width)
    return LocftSettings.model_validate({"preset": "paper", **EVERY_SURFACE, "batch": BATCH, "learning_rate": rate, **overrides})


PARTS: Mapping[str, Callable[[int, Anatomy], Sequence[Case]]] = {
    "pipelines": pipeline_cases,
    "batches": batch_cases,
    "numbers": edit_count_cases,
    "locations": location_cases,
    "methods": method_cases,
}
