"""What every test runs under: one torch thread, and a check that no test leaves a hook, a call or a log behind. And the server of
one tiny model, for those that speak HTTP.
"""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # must be set before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import torch

from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.builders import save_model
from tests.hooks import find_hooked_modules

structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # a server in the process of the tests is not to be heard
torch.set_num_threads(1)  # measured: 40 steps of a tiny model took 0.9 s on one thread and 12-27 s on two


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real", action="store_true", help="run the tests of a real pretrained model too, which make real gets")


@pytest.fixture(autouse=True)
def no_hook_is_left() -> Iterator[None]:
    yield
    from service.lm.overlay import _CALL

    assert _CALL.get() is None
    import tests.builders

    for module in tests.builders.built_models():
        assert not find_hooked_modules(module), "a hook was left on a base model"


@pytest.fixture(autouse=True)
def no_log_is_left() -> Iterator[None]:
    """A command under test sends the log to its own standard error, which is closed when it ends."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny", "llama")


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Shared by the tests of a file that do not mind each other's edits."""
    with live_server(tiny_settings(tiny_model, tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def fresh(tiny_model: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A server of one's own."""
    with live_server(tiny_settings(tiny_model, tmp_path / "data")) as running:
        yield running
