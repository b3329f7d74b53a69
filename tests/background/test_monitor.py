"""The monitor asks the head again, a little at a time: every edit has its turn, and the cadence hears what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.api.version_details import read_details
from service.background.monitor import EDITS_A_PIECE, Monitor
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
class Questions:
    """Asks the ledger's overlays, and remembers what it asked. `inside` is what the shares come to."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)
    inside: float = 0.75
    skills: float | None = 0.9
    forgotten: set[str] = field(default_factory=set)
    during: Callable[[], None] = lambda: None

    def monitor_probes(self) -> MonitorProbes:
        return MonitorProbes(
            answered=self.answered, inside=self._share("inside"), outside=self._share("outside"), capability=self._share("skills")
        )

    def answered(self, overlay: Overlay, edits: Sequence[Edit]) -> list[bool]:
        self.asked.append(tuple(edit.prompt for edit in edits))
        return [answer(overlay, edit) == edit.target and edit.prompt not in self.forgotten for edit in edits]

    def _share(self, name: str) -> Callable[[Overlay, Callable[[], None]], Share | None]:
        def ask(overlay: Overlay, between: Callable[[], None]) -> Share | None:
            self.during()
            between()
            self.shares.append(name)
            if name == "skills":
                return None if self.skills is None else Share(self.skills, 40)
            return Share(self.inside, 50)

        return ask


@pytest.fixture
def questions() -> Questions:
    return Questions()


@pytest.fixture
def local(tmp_path: Path, questions: Questions) -> Iterator[LocalService]:
    settings = LifecycleSettings(cadence=replace(PATIENT, method="baft"), monitor_sample=10)
    made = new_local_service(tmp_path, ledger=Ledger(monitor_probes=questions.monitor_probes()), settings=settings)
    yield made
    made.close()


def rounds(local: LocalService, count: int = 1) -> Monitor:
    """A monitor that has done so many rounds, each after its pause."""
    hands = [0.0]
    monitor = Monitor(local.context, now=lambda: hands[0])
    for _ in range(count):
        hands[0] += local.settings.monitor_s
        while monitor.step():
            pass
    return monitor


def found(local: LocalService) -> dict[str, Measurement]:
    with local.store.read() as connection:
        known = measurements.read_latest(connection, local.head.number)
    return {name: one for name, one in known.items() if one.source == "monitor"}


def test_every_edit_has_its_turn_once_a_version_a_few_at_a_time(local: LocalService, questions: Questions) -> None:
    names = [f"n{number}" for number in range(25)]
    local.post(*((name, "1") for name in names))
    local.worker.drain()

    rounds(local, 5)

    asked = [name for piece in questions.asked for name in piece]
    assert sorted(asked) == sorted(names)
    assert max(len(piece) for piece in questions.asked) <= EDITS_A_PIECE
    assert found(local)["retention"].n == 25


def test_the_next_version_goes_on_with_the_edits_whose_turn_it_is(local: LocalService, questions: Questions) -> None:
    local.post(*((f"n{number}", "1") for number in range(20)))
    local.worker.drain()
    hands = [60.0]
    monitor = Monitor(local.context, now=lambda: hands[0])
    hands[0] = 120.0
    while monitor.step():
        pass
    local.live(("another", "1"))
    hands[0] = 180.0
    while monitor.step():
        pass

    first, second = {*questions.asked[0], *questions.asked[1]}, {*questions.asked[2], *questions.asked[3]}
    assert len(first) == len(second) == 10
    assert not first & second


def test_what_is_not_answered_any_more_lowers_retention(local: LocalService, questions: Questions) -> None:
    local.post(*((f"n{number}", "1") for number in range(20)))
    local.worker.drain()
    questions.forgotten = {"n3", "n7"}

    rounds(local, 2)

    assert found(local)["retention"].score == 18 / 20


def test_what_does_not_change_while_a_version_is_the_head_is_asked_once(local: LocalService, questions: Questions) -> None:
    local.live(("a", "1"))
    questions.skills = None

    rounds(local, 3)

    assert questions.shares.count("inside") == questions.shares.count("outside") == 1
    figures = found(local)
    assert (figures["locality_inside"].score, figures["locality_inside"].n) == (0.75, 50)
    assert "capability" not in figures


def test_the_base_itself_is_not_asked(local: LocalService, questions: Questions) -> None:
    local.worker.drain()

    rounds(local)

    assert not questions.asked and not questions.shares


def test_a_round_is_ended_on_the_version_it_was_begun_on_although_the_head_moves(
    local: LocalService, questions: Questions
) -> None:
    local.live(("a", "1"))
    begun = local.head.number
    names = iter("bcdefgh")
    questions.during = lambda: local.live((next(names), "2")) and None  # type: ignore[func-returns-value]
    rounds(local)
    questions.during = lambda: None

    with local.store.read() as connection:
        own = measurements.read_latest(connection, begun)
        of_the_head = measurements.read_nearest(connection, local.head.number)
    assert local.head.number > begun
    assert (own["locality_inside"].score, own["capability"].score) == (0.75, 0.9)
    assert of_the_head["locality_inside"] == own["locality_inside"]


def test_under_a_stream_of_edits_rounds_come_to_an_end_and_the_cadence_hears_of_capability(
    local: LocalService, questions: Questions
) -> None:
    local.live(*((f"n{number}", "1") for number in range(4)))
    questions.skills = 0.5
    hands = [0.0]
    monitor = Monitor(local.context, now=lambda: hands[0])
    for second in range(70, 80):
        hands[0] = float(second)
        monitor.step()
        local.live((f"n{second % 4}", str(second)))  # a new version after every piece

    with local.store.read() as connection:
        standing = read_cadence_inputs(connection, local.context)
    assert standing.capability == 0.5


def test_a_round_is_left_when_its_version_is_collected(local: LocalService, questions: Questions) -> None:
    local.post(*((f"n{number}", "1") for number in range(12)))
    local.worker.drain()
    begun = local.head.number
    hands = [60.0]
    monitor = Monitor(local.context, now=lambda: hands[0])
    hands[0] = 120.0
    assert monitor.step()
    local.live(("another", "1"))
    with local.store.write() as connection:
        versions.collect(connection, [begun])

    assert not monitor.step()
    assert len(questions.asked) == 1 and not questions.shares


def test_a_purge_in_the_middle_of_a_round_does_not_end_the_monitor(local: LocalService, questions: Questions) -> None:
    (a,) = local.live(("a", "1"))
    hands = [60.0]
    monitor = Monitor(local.context, now=lambda: hands[0])
    hands[0] = 120.0
    local.retract(a)
    local.worker.drain()
    local.live(("b", "2"))
    assert monitor.step()
    purge(local.context, edit_ids=[a.id], by="ann")

    while monitor.step():
        pass
    assert {"locality_inside", "retention"} <= found(local).keys()


def test_nothing_is_asked_before_the_pause_is_over_or_without_questions(
    local: LocalService, questions: Questions, tmp_path: Path
) -> None:
    local.live(("a", "1"))
    assert not Monitor(local.context, now=lambda: 0.0).step()
    (tmp_path / "silent").mkdir()
    silent = new_local_service(tmp_path / "silent")
    silent.live(("a", "1"))

    assert not rounds(silent).step()
    assert not questions.asked
    silent.close()


def test_the_cadence_hears_of_it(local: LocalService, questions: Questions) -> None:
    local.live(("a", "1"), ("b", "2"))
    questions.inside, questions.forgotten = 0.6, {"a"}

    rounds(local)

    with local.store.read() as connection:
        standing = read_cadence_inputs(connection, local.context)
    assert (standing.retention, standing.locality, standing.locality_at_retrain) == (0.5, 0.6, 1.0)


def standing(local: LocalService) -> CadenceInputs:
    with local.store.read() as connection:
        return read_cadence_inputs(connection, local.context)


def shown(local: LocalService, number: int | None = None) -> dict[str, tuple[int, float]]:
    """What a client reads of a version: by name, which version was asked, and what that came to."""
    with local.store.read() as connection:
        version = versions.get(connection, local.head.number if number is None else number)
        return {name: (one.version, one.score) for name, one in read_details(connection, version)["measured"].items()}


def test_what_was_not_asked_of_a_version_is_shown_of_the_nearest_one_before_it(local: LocalService) -> None:
    local.live(("a", "1"))
    rounds(local)
    asked = local.head.number
    local.live(("b", "2"), ("c", "3"))

    assert shown(local)["capability"] == shown(local, asked)["capability"] == (asked, 0.9)
    assert shown(local)["retention"] == (local.head.number, 1.0)
    assert "capability" not in shown(local, 0)


def test_after_a_rollback_the_figures_are_those_of_the_version_that_was_restored(
    local: LocalService, questions: Questions
) -> None:
    local.live(("a", "1"))
    rounds(local)
    good = local.head.number
    local.live(("b", "2"))
    questions.skills = 0.1
    rounds(local)
    local.live(("c", "3"))
    local.roll_back(good)
    assert shown(local)["capability"] == (good, 0.9)

    local.live(("d", "4"))

    assert shown(local)["capability"] == (good, 0.9)
    assert shown(local, good + 2)["capability"] == (good + 1, 0.1)


@pytest.mark.parametrize("mode", ["major", "minor", "rollback"])
def test_a_figure_from_before_the_tensors_became_what_they_are_makes_nothing_due(
    local: LocalService, questions: Questions, mode: str
) -> None:
    local.live(("a", "1"))
    local.retrain()
    local.worker.drain()
    good = local.head.number
    local.live(("b", "2"))
    questions.skills = 0.1
    rounds(local)
    assert standing(local).capability == 0.1

    if mode == "rollback":
        local.roll_back(good)
    else:
        local.retrain(mode)  # type: ignore[arg-type]
    local.worker.drain()

    assert standing(local).capability is None
    local.live(("c", "3"))
    assert standing(local).capability is None
    questions.skills = 1.0
    rounds(local)
    assert standing(local).capability == 1.0
