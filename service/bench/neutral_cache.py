"""Where benchmarks keep what costs a minute and never changes: the neutral sentences of each base model, by its fingerprint."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Sampled once a machine and user, as a data folder keeps them once a base.
CACHE_FOLDER = Path(tempfile.gettempdir()) / f"errata-benchmarks-{os.getuid()}"


@contextmanager
def cached_neutral(neutral: Path, cache: Path = CACHE_FOLDER) -> Iterator[None]:
    """Bring what is kept into a data folder's `neutral`; what a server samples there meanwhile is kept for the next one."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(cache, neutral, dirs_exist_ok=True)
    try:
        yield
    finally:
        shutil.copytree(neutral, cache, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.part"))
