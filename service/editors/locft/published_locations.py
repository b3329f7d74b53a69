"""Where the papers tune their models, and the rules for all others. Plain numbers: knows no model, only families and depths."""

from dataclasses import dataclass
from typing import Literal

from service.domain.errors import Refused
from service.editors.depth_rule import at_share, same_depth

BlockKind = Literal["down", "up", "mlp", "attention", "block"]
LocationKind = BlockKind | Literal["model"]
Position = Literal["auto", "default", "proportional", "share"]
LocationRule = Literal["published", "measured", "default", "proportional", "share", "given"]

SHARE = 0.72  # of the depth: block 22 of 32. Our own rule, for families that no paper names
_RATE = 5e-4
_COARSE_RATE = 5e-5  # of whole blocks, as the papers train Mistral's
_PAPER_WIDTH = 4096


@dataclass(frozen=True)
class PublishedLocation:
    """The location and rate that the papers chose for one model of a family."""

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


# What our own measurements chose for a model that the papers do not know, by (family, depth, width): the embedded one. With 300
# edits the MLP of block 6 keeps more wordings and leaves more alone than the down-projection of block 5, in a third of the time.
MEASURED: dict[tuple[str, int, int], tuple[LocationKind, int]] = {("llama", 8, 192): ("mlp", 6)}


def choose_block(asked: Position, family: str, depth: int) -> tuple[int, LocationRule]:
    """The block (from 0) that a rule gives for a model, and the rule by its name.

    `default` is the block of the paper's own model, whatever the depth; `proportional` lies as deep as that one (section 4.3 of
    the LocFT-BF paper); `share` is at 0.72 of the depth. `auto`: the published block for a model of the published depth, the
    proportional one for others of its family, the share elsewhere. Refused where the paper names no position or the model is not
    as deep.
    """
    published = PUBLISHED.get(family)
    if asked == "share" or (asked == "auto" and published is None):
        return at_share(SHARE, depth), "share"
    if published is None:
        raise Refused(f"The papers give no position for models of the family {family}.", field="locft.position")
    if asked == "auto" and depth == published.depth:
        return published.block, "published"
    if asked == "default":
        if published.block >= depth:
            raise Refused(
                f"The papers' default position is block {published.block}, and the model has only {depth}, numbered from 0.",
                field="locft.position",
            )
        return published.block, "default"
    return same_depth(published.block, published.depth, depth), "proportional"


def published_kind(family: str) -> LocationKind:
    """What the papers train in a block: the down-projection, but for Mistral."""
    published = PUBLISHED.get(family)
    return published.kind if published else "down"


def choose_rate(kind: LocationKind, family: str, depth: int, width: int, *, scaled: bool) -> float:
    """The rate of Adam: the published one for a published model, which its depth and width tell, else that of the kind, if
    `scaled` raised as the model gets narrower.
    """
    published = PUBLISHED.get(family)
    if published and (published.kind, published.depth, published.width) == (kind, depth, width):
        return published.rate
    rate = _COARSE_RATE if kind in ("block", "model") else _RATE
    return rate * max(1.0, _PAPER_WIDTH / width) if scaled else rate
