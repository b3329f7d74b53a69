"""Shares of what a version keeps, with intervals. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

_Z = 1.96  # 95 %


@dataclass(frozen=True)
class KeptShare:
    """The share of `n` answers that are kept, or the mean of `n` shares, with a 95 % interval."""

    kept: float
    n: int
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """The share as a score of a version."""
        return {"kept": self.kept, "n": self.n, "interval": [self.low, self.high]}


def share_of(kept: Sequence[bool]) -> KeptShare | None:
    """The share of kept answers, with Wilson's interval; None without answers."""
    n = len(kept)
    if not n:
        return None
    share = sum(kept) / n
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return KeptShare(share, n, max(0.0, center - half), min(1.0, center + half))


def mean_of(shares: Sequence[float], weights: Sequence[int]) -> KeptShare | None:
    """The mean of shares with weights, with a normal interval from their spread: tokens of one sentence are no
    independent draws. None without weights.
    """
    total = sum(weights)
    if not total:
        return None
    mean = sum(share * weight for share, weight in zip(shares, weights, strict=True)) / total
    spread = sum((weight * (share - mean)) ** 2 for share, weight in zip(shares, weights, strict=True))
    half = _Z * sqrt(spread) / total
    return KeptShare(mean, total, max(0.0, mean - half), min(1.0, mean + half))
