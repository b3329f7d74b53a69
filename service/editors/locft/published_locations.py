"""The locations that the papers train, and the rules for all other models. Plain numbers: families and depths, no model."""

import math
from dataclasses import dataclass
from typing import Literal

from service.domain.errors import Refused
from service.editors.depth_rule import block_at_share, scale_block

BlockKind = Literal["down", "up", "mlp", "attention", "block"]
LocationKind = BlockKind | Literal["model"]
Position = Literal["auto", "late", "published", "default", "proportional", "share"]
LocationRule = Literal["published", "measured", "late", "default", "proportional", "share", "given"]

LATE_SHARE = 0.9  # of the depth: block 26 of 30. Errata's own rule, for models that no paper names
SHARE = 0.72  # of the depth: block 22 of 32, as deep as the papers train Llama, for families that they do not name
_RATE = 5e-4
_COARSE_RATE = 5e-5  # of whole blocks, as the papers train Mistral's
_PAPER_WIDTH = 4096


@dataclass(frozen=True)
class PublishedLocation:
    """The location and rate of the papers for one model of a family."""

    kind: LocationKind
    block: int
    depth: int
    width: int
    rate: float


PUBLISHED: dict[str, PublishedLocation] = {
    "llama": PublishedLocation("down", 22, 32, 4096, _RATE),  # Llama-3-8B
    "mistral": PublishedLocation("block", 23, 32, 4096, _COARSE_RATE),  # Mistral-7B
    "qwen2": PublishedLocation("down", 6, 28, 3584, _RATE),  # Qwen2.5-7B
    "qwen2_moe": PublishedLocation("down", 20, 24, 2048, _RATE),  # Qwen1.5-MoE-A2.7B: the shared expert's
}


# The location that our measurements chose for the embedded model, which no paper names, by (family, depth, width). With 300 edits
# the MLP of block 6 has a higher generality and locality than the down-projection of block 5, in a third of the time.
MEASURED: dict[tuple[str, int, int], tuple[LocationKind, int]] = {("llama", 8, 192): ("mlp", 6)}


def choose_block(position: Position, family: str, depth: int, width: int) -> tuple[int, LocationRule]:
    """The block (from 0) of a position in a model, and the name of the rule that gave it.

    `late` is at 0.9 of the depth. `default` is the block of the paper's own model, at any depth; `proportional` is as deep as
    that block (LocFT-BF paper, section 5.2); `share` is at 0.72 of the depth. `published`: the published block at the published
    depth, the proportional block for other models of a published family, the share elsewhere. `auto`: the published block in a
    published model, by depth and width, and late in all others. Raises Refused where the paper names no position, or a block
    that the model does not have.
    """
    published = PUBLISHED.get(family)
    if position == "auto":
        is_published = published is not None and (published.depth, published.width) == (depth, width)
        position = "published" if is_published else "late"
    if position == "late":
        return block_at_share(LATE_SHARE, depth), "late"
    if position == "share" or (position == "published" and published is None):
        return block_at_share(SHARE, depth), "share"
    if published is None:
        raise Refused(f"The papers give no position for models of the family {family}.", field="position")
    if position == "published" and depth == published.depth:
        return published.block, "published"
    if position == "default":
        if published.block >= depth:
            raise Refused(
                f"The papers' default position is block {published.block}, and the model has only {depth}, numbered from 0.",
                field="position",
            )
        return published.block, "default"
    return scale_block(published.block, published.depth, depth), "proportional"


def published_kind(family: str) -> LocationKind:
    """The part of a block that the papers train: the down-projection, except for Mistral."""
    published = PUBLISHED.get(family)
    return published.kind if published else "down"


def choose_rate(kind: LocationKind, family: str, depth: int, width: int, *, scaled: bool) -> float:
    """The rate of Adam: the published rate for a published model (by depth and width), else the rate of the kind.

    With `scaled` the rate of the kind rises as the root of the width falls.
    """
    published = PUBLISHED.get(family)
    if published and (published.kind, published.depth, published.width) == (kind, depth, width):
        return published.rate
    rate = _COARSE_RATE if kind in ("block", "model") else _RATE
    return rate * max(1.0, math.sqrt(_PAPER_WIDTH / width)) if scaled else rate
