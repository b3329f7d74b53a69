"""The monitor measures the head in short steps: every edit has its turn, and the cadence reads the figures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.api.version_details import read_details
from service.background.monitor import EDITS_PER_STEP, Monitor
from service.background.purge import purge
from service.domain.cadence import CadenceInputs
from service.domain.edit import Edit
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.editors import MonitorProbes, Share
from service.lifecycle.settings import LifecycleSettings
from service.lm.overlay import Overlay
from service.store import measurements, versions
from service.store.measurements import Measurement
from tests.lifecycle.ledger import Ledger, answer
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service


@dataclass
class FakeProbes:
    """Probes of the ledger's overlays that record the prompts asked. `inside` is the share kept of the sentences of fits."""

    prompts: list[tuple[str, ...]] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)
    inside: float = 0.75
    capability: float | None = 0.9
    forgotten: set[str] = field(default_factory=set)
    during: Callable[[], None] = lambda: None

    def monitor_probes(self) -> MonitorProbes:
        return MonitorProbes(
            answered=self.answered,
            inside=self._share("inside"),
            capability=self._share("capability"),
        )

    def answered(self, overlay: Overlay, edits: Sequence[Edit]) -> list[bool]:
        self.prompts.append(tuple(edit.prompt for edit in edits))
        return [answer(overlay, edit) == edit.target and edit.prompt not in self.forgotten for edit in edits]

    def _share(self, name: str) -> Callable[[Overlay, Callable[[], None]], Share | None]:
        def ask(overlay: Overlay, between: Callable[[], None]) -> Share | None:
            self.during()
            between()
            self.shares.append(name)
            if name == "capability":
                return None if self.capability is None else Share(self.capability, 40)
            return Share(self.inside, 50)

        return ask


@pytest.fixture
def probes() -> FakeProbes:
    return FakeProbes()


@pytest.fixture
def local(tmp_path: Path, probes: FakeProbes) -> Iterator[LocalService]:
    settings = LifecycleSettings(cadence=replace(PATIENT, automatic=False), monitor_sample=10)
    service = new_local_service(tmp_path, ledger=Ledger(monitor_probes=probes.monitor_probes()), settings=settings)
    yield service
    service.close()


def run_rounds(local: LocalService, count: int = 1) -> Monitor:
    """A monitor that has done `count` rounds, each after its pause."""
    clock = [0.0]
    monitor = Monitor(local.context, now=lambda: clock[0])
    for _ in range(count):
        clock[0] += local.settings.monitor_s
        while monitor.step():
            pass
    return monitor


def monitor_figures(local: LocalService) -> dict[str, Measurement]:
    with local.store.read() as connection:
        latest = measurements.read_latest(connection, local.head.number)
    return {name: measurement for name, measurement in latest.items() if measurement.source == "monitor"}


def test_every_edit_is_asked_once_a_version_a_few_at_a_time(local: LocalService, probes: FakeProbes) -> None:
    names = [f"n{number}" for number in range(25)]
    local.post(*((name, "1") for name in names))
    local.worker.drain()

    run_rounds(local, 5)

    prompts = [name for batch in probes.prompts for name in batch]
    assert sorted(prompts) == sorted(names)
    assert max(len(batch) for batch in probes.prompts) <= EDITS_PER_STEP
    assert monitor_figures(local)["retention"].n == 25


def test_the_next_version_goes_on_with_the_edits_not_asked_yet(local: LocalService, probes: FakeProbes) -> None:
    local.post(*((f"n{number}", "1") for number in range(20)))
    local.worker.drain()
    clock = [60.0]
    monitor = Monitor(local.context, now=lambda: clock[0])
    clock[0] = 120.0
    while monitor.step():
        pass
    local.live(("another", "1"))
    clock[0] = 180.0
    while monitor.step():
        pass

    first, second = {*probes.prompts[0], *probes.prompts[1]}, {*probes.prompts[2], *probes.prompts[3]}
    assert len(first) == len(second) == 10
    assert not first & second


def test_edits_that_are_not_answered_any_more_lower_retention(local: LocalService, probes: FakeProbes) -> None:
    local.post(*((f"n{number}", "1") for number in range(20)))
    local.worker.drain()
    probes.forgotten = {"n3", "n7"}

    run_rounds(local, 2)

    assert monitor_figures(local)["retention"].score == 18 / 20


def test_locality_and_capability_are_measured_once_a_version(local: LocalService, probes: FakeProbes) -> None:
    local.live(("a", "1"))
    probes.capability = None

    run_rounds(local, 3)

    assert probes.shares.count("inside") == 1
    figures = monitor_figures(local)
    assert (figures["prose_inside"].score, figures["prose_inside"].n) == (0.75, 50)
    assert "capability" not in figures


def test_the_base_is_not_asked(local: LocalService, probes: FakeProbes) -> None:
    local.worker.drain()

    run_rounds(local)

    assert not probes.prompts and not probes.shares


def test_a_round_ends_on_its_version_although_the_head_moves(local: LocalService, probes: FakeProbes) -> None:
    local.live(("a", "1"))
    round_version = local.head.number
    names = iter("bcdefgh")
    probes.during = lambda: local.live((next(names), "2")) and None  # type: ignore[func-returns-value]
    run_rounds(local)
    probes.during = lambda: None

    with local.store.read() as connection:
        own = measurements.read_latest(connection, round_version)
        of_head = measurements.read_nearest(connection, local.head.number)
    assert local.head.number > round_version
    assert (own["prose_inside"].score, own["capability"].score) == (0.75, 0.9)
    assert of_head["prose_inside"] == own["prose_inside"]


def test_under_a_stream_of_edits_the_cadence_still_gets_capability(local: LocalService, probes: FakeProbes) -> None:
    local.live(*((f"n{number}", "1") for number in range(4)))
    probes.capability = 0.5
    clock = [0.0]
    monitor = Monitor(local.context, now=lambda: clock[0])
    for second in range(70, 80):
        clock[0] = float(second)
        monitor.step()
        local.live((f"n{second % 4}", str(second)))  # a new version after every step

    assert cadence_inputs(local).capability == 0.5


def test_a_round_ends_when_its_version_is_collected(local: LocalService, probes: FakeProbes) -> None:
    local.post(*((f"n{number}", "1") for number in range(12)))
    local.worker.drain()
    round_version = local.head.number
    clock = [60.0]
    monitor = Monitor(local.context, now=lambda: clock[0])
    clock[0] = 120.0
    assert monitor.step()
    local.live(("another", "1"))
    with local.store.write() as connection:
        versions.collect(connection, [round_version])

    assert not monitor.step()
    assert len(probes.prompts) == 1 and not probes.shares


def test_a_purge_in_the_middle_of_a_round_does_not_end_the_monitor(local: LocalService, probes: FakeProbes) -> None:
    (a,) = local.live(("a", "1"))
    clock = [60.0]
    monitor = Monitor(local.context, now=lambda: clock[0])
    clock[0] = 120.0
    local.retract(a)
    local.worker.drain()
    local.live(("b", "2"))
    assert monitor.step()
    purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)

    while monitor.step():
        pass
    assert {"prose_inside", "far", "retention"} <= monitor_figures(local).keys()


def test_nothing_is_asked_before_the_pause_is_over_or_without_probes(
    local: LocalService, probes: FakeProbes, tmp_path: Path
) -> None:
    local.live(("a", "1"))
    assert not Monitor(local.context, now=lambda: 0.0).step()
    (tmp_path / "unmonitored").mkdir()
    unmonitored = new_local_service(tmp_path / "unmonitored")
    unmonitored.live(("a", "1"))

    assert not run_rounds(unmonitored).step()
    assert not probes.prompts
    unmonitored.close()


def test_the_cadence_reads_the_figures_of_the_monitor(local: LocalService, probes: FakeProbes) -> None:
    local.live(("a", "1"), ("b", "2"))
    local.ledger.far, probes.forgotten = (lambda size: 0.6), {"a"}
    local.ledger.kept.clear()

    run_rounds(local)

    inputs = cadence_inputs(local)
    assert (inputs.retention, inputs.locality, inputs.locality_at_retrain) == (0.5, 0.6, 1.0)


def cadence_inputs(local: LocalService) -> CadenceInputs:
    with local.store.read() as connection:
        return read_cadence_inputs(connection, local.context)


def measured_figures(local: LocalService, number: int | None = None) -> dict[str, tuple[int, float]]:
    """The figures that a client reads of a version: by name, the version that was measured and its score."""
    with local.store.read() as connection:
        version = versions.get(connection, local.head.number if number is None else number)
        return {name: (figure.version, figure.score) for name, figure in read_details(connection, version)["measured"].items()}


def test_a_figure_not_measured_yet_is_that_of_the_nearest_earlier_version(local: LocalService) -> None:
    local.live(("a", "1"))
    run_rounds(local)
    measured = local.head.number
    local.live(("b", "2"), ("c", "3"))

    assert measured_figures(local)["capability"] == measured_figures(local, measured)["capability"] == (measured, 0.9)
    assert measured_figures(local)["retention"] == (local.head.number, 1.0)
    assert "capability" not in measured_figures(local, 0)


def test_after_a_rollback_the_figures_are_those_of_the_restored_version(local: LocalService, probes: FakeProbes) -> None:
    local.live(("a", "1"))
    run_rounds(local)
    good = local.head.number
    local.live(("b", "2"))
    probes.capability = 0.1
    run_rounds(local)
    local.live(("c", "3"))
    local.roll_back(good)
    assert measured_figures(local)["capability"] == (good, 0.9)

    local.live(("d", "4"))

    assert measured_figures(local)["capability"] == (good, 0.9)
    assert measured_figures(local, good + 2)["capability"] == (good + 1, 0.1)


@pytest.mark.parametrize("mode", ["major", "minor", "rollback"])
def test_a_figure_from_before_the_tensors_changed_makes_nothing_due(local: LocalService, probes: FakeProbes, mode: str) -> None:
    local.live(("a", "1"))
    local.retrain()
    local.worker.drain()
    good = local.head.number
    local.live(("b", "2"))
    probes.capability = 0.1
    run_rounds(local)
    assert cadence_inputs(local).capability == 0.1

    if mode == "rollback":
        local.roll_back(good)
    else:
        local.retrain(mode)  # type: ignore[arg-type]
    local.worker.drain()

    assert cadence_inputs(local).capability is None
    local.live(("c", "3"))
    assert cadence_inputs(local).capability is None
    probes.capability = 1.0
    run_rounds(local)
    assert cadence_inputs(local).capability == 1.0
