"""A server over a new data folder, and its versions read in this process.

Edits go through HTTP as a user's do. The versions that come of them are opened from the data folder, where they never change. So
a measurement costs the server nothing and can see whole distributions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.bench.ground.contenders import VersionContender
from service.bench.new_server import run_new_server
from service.client.errata_client import ErrataClient
from service.lm.base import Base
from service.lm.overlay import View, make_view
from service.runtime.base_model import open_base
from service.runtime.open_version import read_head_of_store, read_overlay
from service.settings import Settings, load_settings


@dataclass(frozen=True)
class GroundServer:
    """A running server, and the base model loaded in this process."""

    client: ErrataClient
    settings: Settings
    base: Base
    base_view: View

    def open(self, version: int) -> VersionContender:
        """A version of the server's store, ready to be asked here."""
        _number, overlay, _day = read_overlay(self.settings, str(version), self.base)
        view = make_view(self.base, overlay.tensors) if overlay.tensors else self.base_view
        return VersionContender(view, overlay.adapter)


@contextmanager
def run_ground_server(model: str, contender: str, *, every: int, environment: Mapping[str, str]) -> Iterator[GroundServer]:
    """A server with the settings of a contender and those of `environment`, over a new data folder that is removed at the end.

    Raises Unavailable if the server does not start.
    """
    with run_new_server(contender, model, every=every, environment=environment) as (client, data):
        yield _open(client, model, data)


def _open(client: ErrataClient, model: str, data: Path) -> GroundServer:
    """The server with its base model loaded here, in the arithmetic of its store."""
    settings = load_settings(model=model, dtype=client.get_model()["dtype"])
    settings = settings.model_copy(update={"data_dir": data, "database_url": None})
    base, _ = open_base(settings, read_head_of_store(settings))
    return GroundServer(client, settings, base, make_view(base))
