"""A real pretrained model for the tests of this folder, which nothing here downloads: `make real` gets it first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models import cache
from service.settings import load_settings
from tests.api.live_server import LiveServer, live_server, tiny_settings

WHY = "needs --real and the model smollm2: run make real"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--real"):
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    model = cache.find(load_settings().models_folder, "smollm2")
    assert model is not None, WHY
    return model.folder


@pytest.fixture(scope="module")
def real(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of the real model, by its name, with few neutral sentences."""
    settings = tiny_settings(
        Path("smollm2"),
        tmp_path_factory.mktemp("data"),
        models_dir=smollm2.parent,
        locft={"preserve_pool": 16, "epochs": 20, "surfaces": "raw"},
        limits={"fit_s": 600},
    )
    with live_server(settings) as running:
        yield running
