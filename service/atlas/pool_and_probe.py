"""Pool and probe halves of relations and subjects, by hash.

A prompt of the pool half may be a neutral prompt of a fit. A prompt of the probe half never is. So locality can be reported
inside and outside the pool that fits protect.
"""

from hashlib import sha256

# With this salt the relations are divided seven to seven, and both halves have relations about countries and about elements.
SALT = "atlas-6"


def is_pool(name: str) -> bool:
    """Whether a relation's or a subject's name falls into the pool half. A function of the name alone."""
    return sha256(f"{SALT}:{name}".encode()).digest()[0] % 2 == 0


def fact_is_pool(relation: str, subject: str) -> bool:
    """Whether prompts about this fact may be used as neutral ones: relation and subject must both be in the pool."""
    return is_pool(relation) and is_pool(subject)
