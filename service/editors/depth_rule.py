"""The papers' rule for models of another depth: an equal share of the blocks lies below the chosen block."""

import math


def scale_block(block: int, depth: int, other_depth: int) -> int:
    """The block (from 0) of a model with `other_depth` blocks that is as deep as `block` in a model with `depth` blocks.

    `round((block + 1) · other_depth / depth) − 1`, halves rounded up, clamped to the model.
    """
    return block_at_share((block + 1) / depth, other_depth)


def block_at_share(share: float, depth: int) -> int:
    """The block (from 0) at the end of the first `share` of the blocks: `round(share · depth) − 1`, clamped to the model."""
    return min(max(math.floor(share * depth + 0.5) - 1, 0), depth - 1)
