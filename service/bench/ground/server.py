"""A server over a new data folder, and its versions read in this process.

Edits go through HTTP as a user's do. The versions that come of them are opened from the data folder, where they never change. So
a measurement costs the server nothing and can see whole distributions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from service.bench.ground.contenders import StatingContender, VersionContender
from service.bench.new_server import NewServer, run_new_server, wait_until_nothing_waits
from service.client.errata_client import ErrataClient
from service.client.shapes import JobData
from service.client.waiting import LIVE, is_counted_live
from service.lm.base import Base
from service.lm.overlay import View, make_view
from service.runtime.base_model import open_base
from service.runtime.open_version import read_head_of_store, read_overlay, read_stated
from service.settings import Settings, load_settings

PATIENCE_S = 1_800.0  # for one edit, or for a retrain
IDLE_S = 30.0  # after so long without a retrain, none is expected


@dataclass(frozen=True)
class GroundServer:
    """A running server, and the base model loaded in this process."""

    client: ErrataClient
    settings: Settings
    base: Base
    base_view: View
    process_id: int

    def open(self, version: int, *, weights_alone: bool = False) -> VersionContender | StatingContender:
        """A version of the server's store with the edits that it states, ready to be asked here; with `weights_alone` its tensors
        and nothing else.
        """
        _number, overlay, _day = read_overlay(self.settings, str(version), self.base)
        view = make_view(self.base, overlay.tensors) if overlay.tensors else self.base_view
        if weights_alone:
            return VersionContender(view, None)
        stated = read_stated(self.settings, version, self.base)
        return StatingContender(view, overlay.adapter, stated) if stated.edits else VersionContender(view, overlay.adapter)

    def wait_until_nothing_waits(self) -> None:
        """Wait until no edit waits for a fit, or for a retrain that comes by itself."""
        wait_until_nothing_waits(lambda listing: next(listing(self.client), None), patience_s=PATIENCE_S, idle_s=IDLE_S)

    def retrain_everything(self) -> JobData:
        """The major retrain that is asked for here, when it has ended, well or not."""
        requested = self.client.retrain("the benchmark asks for the weights alone", mode="major")
        return self.client.wait_for_job(requested, timeout_s=PATIENCE_S)

    def list_live(self, *, with_overruled: bool = False) -> set[str]:
        """The ids of live edits; those accepted anyway count with `with_overruled` alone."""
        found = [item for status in LIVE for item in self.client.list_edits(status=status)]
        return {item["id"] for item in found if with_overruled or is_counted_live(item)}


@contextmanager
def run_ground_server(model: str, contender: str, *, every: int, environment: Mapping[str, str]) -> Iterator[GroundServer]:
    """A server with the settings of a contender and those of `environment`, over a new data folder that is removed at the end.

    Raises Unavailable if the server does not start.
    """
    with run_new_server(contender, model, every=every, environment=environment) as server:
        yield _open(server, model)


def _open(server: NewServer, model: str) -> GroundServer:
    """The server with its base model loaded here, in the arithmetic of its store."""
    settings = load_settings(model=model, dtype=server.client.get_model()["dtype"])
    settings = settings.model_copy(update={"data_dir": server.data, "database_url": None})
    base, _ = open_base(settings, read_head_of_store(settings))
    return GroundServer(server.client, settings, base, make_view(base), server.process_id)
