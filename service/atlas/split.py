"""Pool and probe halves of relations and subjects, by hash.

A prompt of the pool half may serve as a neutral prompt while an edit is fitted; one of the probe half never does, so that
locality can be reported inside and outside of what was protected.
"""

from hashlib import sha256

# Chosen so that the relations fall seven to seven and both halves hold relations about countries and about elements.
SALT = "atlas-6"


def is_pool(name: str) -> bool:
    """Whether a relation's or a subject's name falls into the pool half. A function of the name alone."""
    return sha256(f"{SALT}:{name}".encode()).digest()[0] % 2 == 0


def fact_is_pool(relation: str, subject: str) -> bool:
    """Whether prompts about this fact may be used as neutral ones: relation and subject must both be in the pool."""
    return is_pool(relation) and is_pool(subject)
