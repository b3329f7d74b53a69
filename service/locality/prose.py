"""Prose: sentences of the base model that no fit sees, read token by token.

An edit should leave the likeliest token of nearly all positions as it is, and the distribution close to the base's.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ProseChange:
    """One sentence under a version: the share of its tokens whose likeliest one is kept, KL(base ‖ version) in nats a token, and
    the number of tokens.
    """

    kept: float
    divergence: float
    tokens: int


def total_change(changes: Sequence[ProseChange]) -> ProseChange | None:
    """The change over all tokens of several sentences; None without sentences."""
    tokens = sum(change.tokens for change in changes)
    if not tokens:
        return None
    kept = sum(change.kept * change.tokens for change in changes) / tokens
    return ProseChange(kept, sum(change.divergence * change.tokens for change in changes) / tokens, tokens)
