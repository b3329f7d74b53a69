"""The median ratio of paired times, with a bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median over pairs of after / before, with its bootstrap interval."""

    median: float
    low: float
    high: float


def compute_ratio(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Ratio:
    """The ratio of paired times."""
    ratios = [second / first for first, second in zip(before, after, strict=True)]
    return Ratio(median(ratios), *bootstrap_interval(ratios, seed=seed))


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> tuple[float, float]:
    """The percentile bootstrap interval of the median: the middle share `level` of the medians of samples with replacement."""
    rng = Random(seed)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(draws))
    tail = round(draws * (1 - level) / 2)
    return medians[tail], medians[-1 - tail]
