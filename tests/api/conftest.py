"""One tiny model for all tests of the API, and one server that those tests share which do not mind each other's edits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.live import Live, live, tiny_settings
from tests.builders import save_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny", "llama")


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tiny_settings(tiny_model, tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def fresh(tiny_model: Path, tmp_path: Path) -> Iterator[Live]:
    """A server of one's own."""
    with live(tiny_settings(tiny_model, tmp_path / "data")) as running:
        yield running
