"""Fluency as CounterFact and EasyEdit define it: the variety of generated text, by entropies of word pairs and triples.

Fluency falls when a model repeats itself. Words are split by a regular expression, not by NLTK, so figures compare with each
other, and not with figures from NLTK.
"""

import re
from collections import Counter
from math import log2

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
LONGEST = 100  # generated tokens
_WORD = re.compile(r"\w+|[^\w\s]")


def entropy(text: str) -> float:
    """Σₙ wₙ H(n-grams) / 2 in bits, for n = 2 with weight 2/3 and n = 3 with 4/3 (ROME, Appendix: weighted n-gram entropy)."""
    words = _WORD.findall(text)
    return sum(weight * _entropy(words, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)


def _entropy(words: list[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return -sum(count / total * log2(count / total) for count in counts.values())
