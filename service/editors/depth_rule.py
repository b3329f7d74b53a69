"""The papers' rule for models of another depth: the same share of the blocks lies below."""

import math


def same_depth(block: int, depth: int, other_depth: int) -> int:
    """The block (from 0) of a model with `other_depth` blocks that lies as deep as `block` of a model with `depth` ones.

    `round((block + 1) · other_depth / depth) − 1`, halves rounded up, kept within the model.
    """
    return at_share((block + 1) / depth, other_depth)


def at_share(share: float, depth: int) -> int:
    """The block (from 0) with which `share` of the blocks end: `round(share · depth) − 1`, kept within the model."""
    return min(max(math.floor(share * depth + 0.5) - 1, 0), depth - 1)
