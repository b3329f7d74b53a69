"""A local service that the tests of the lifecycle share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.local_service import LocalService, new_local_service


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    """A service over a new SQLite file, in which nothing is due by itself."""
    service = new_local_service(tmp_path)
    yield service
    service.close()
