"""The cache of neutral sentences by the base model's fingerprint. Sampling takes a minute, and the sentences never change."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# One folder for each user of the machine.
CACHE_FOLDER = Path(tempfile.gettempdir()) / f"errata-benchmarks-{os.getuid()}"


@contextmanager
def cached_neutral(neutral: Path, cache: Path = CACHE_FOLDER) -> Iterator[None]:
    """Copy the cache into a data folder's `neutral`. At the end, sentences that a server sampled there are added to the cache."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(cache, neutral, dirs_exist_ok=True)
    try:
        yield
    finally:
        shutil.copytree(neutral, cache, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.part"))
