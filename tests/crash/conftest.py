"""What the trials share: one parent of all servers, one model, and its neutral sentences, sampled once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import Zygote
from tests.builders import save_model
from tests.no_limits import NO_LIMITS


@pytest.fixture(scope="package")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="package")
def neutral_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neutral")


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for a random model of four narrow blocks: it learns a line in a few steps if it may take large ones."""
    return {
        "model": str(save_model(tmp_path_factory.mktemp("model"))),
        "neutral": {"sentences": 40, "held_out": 30, "tokens": 12},
        "window": NO_LIMITS,
        "baft": {"preserve_weight": 0.1},
    }
