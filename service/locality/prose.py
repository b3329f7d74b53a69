"""Prose: sentences of the base model that no fit sees, read token by token.

An edit should leave the likeliest token of nearly all positions as it is, and the distribution close to the base's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.locality.share import KeptShare, mean_of


@dataclass(frozen=True)
class ProseChange:
    """One sentence under a version: the share of its tokens whose likeliest one is kept, KL(base ‖ version) in nats a token, and
    the number of tokens.
    """

    kept: float
    divergence: float
    tokens: int


def kept_of(changes: Sequence[ProseChange]) -> KeptShare | None:
    """The share of tokens whose likeliest one is kept; None without sentences."""
    return mean_of([change.kept for change in changes], [change.tokens for change in changes])


def divergence_of(changes: Sequence[ProseChange]) -> KeptShare | None:
    """KL(base ‖ version) in nats a token; None without sentences."""
    return mean_of([change.divergence for change in changes], [change.tokens for change in changes])
