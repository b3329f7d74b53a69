"""All attacks. Each module here has a list `ATTACKS`; attacks run in the order of the modules' names."""

import importlib
import pkgutil
from collections.abc import Iterator

from benchmarks.hostile.tools import Attack


def every_attack() -> Iterator[Attack]:
    """All attacks."""
    for module in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{module.name}").ATTACKS
