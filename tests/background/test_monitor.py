"""The monitor asks the head again, a little at a time: every edit has its turn, and the cadence hears what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.api.version_details import details_of
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
from tests.lifecycle.local_store import PATIENT, House, new_house


@dataclass
class Questions:
    """Asks the ledger's overlays, and remembers what it asked. `inside` is what the shares come to."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)
    inside: float = 0.75
    skills: float | None = 0.9
    forgotten: set[str] = field(default_factory=set)
    during: Callable[[], None] = lambda: None

    def watched(self) -> MonitorProbes:
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
def house(tmp_path: Path, questions: Questions) -> Iterator[House]:
    settings = LifecycleSettings(cadence=replace(PATIENT, method="baft"), monitor_sample=10)
    made = new_house(tmp_path, ledger=Ledger(watched=questions.watched()), settings=settings)
    yield made
    made.close()


def rounds(house: House, count: int = 1) -> Monitor:
    """A monitor that has done so many rounds, each after its pause."""
    hands = [0.0]
    monitor = Monitor(house.parts, now=lambda: hands[0])
    for _ in range(count):
        hands[0] += house.settings.monitor_s
        while monitor.step():
            pass
    return monitor


def found(house: House) -> dict[str, Measurement]:
    with house.store.read() as connection:
        known = measurements.latest(connection, house.head.number)
    return {name: one for name, one in known.items() if one.source == "monitor"}


def test_every_edit_has_its_turn_once_a_version_a_few_at_a_time(house: House, questions: Questions) -> None:
    names = [f"n{number}" for number in range(25)]
    house.post(*((name, "1") for name in names))
    house.worker.drain()

    rounds(house, 5)

    asked = [name for piece in questions.asked for name in piece]
    assert sorted(asked) == sorted(names)
    assert max(len(piece) for piece in questions.asked) <= EDITS_A_PIECE
    assert found(house)["retention"].n == 25


def test_the_next_version_goes_on_with_the_edits_whose_turn_it_is(house: House, questions: Questions) -> None:
    house.post(*((f"n{number}", "1") for number in range(20)))
    house.worker.drain()
    hands = [60.0]
    monitor = Monitor(house.parts, now=lambda: hands[0])
    hands[0] = 120.0
    while monitor.step():
        pass
    house.live(("another", "1"))
    hands[0] = 180.0
    while monitor.step():
        pass

    first, second = {*questions.asked[0], *questions.asked[1]}, {*questions.asked[2], *questions.asked[3]}
    assert len(first) == len(second) == 10
    assert not first & second


def test_what_is_not_answered_any_more_lowers_retention(house: House, questions: Questions) -> None:
    house.post(*((f"n{number}", "1") for number in range(20)))
    house.worker.drain()
    questions.forgotten = {"n3", "n7"}

    rounds(house, 2)

    assert found(house)["retention"].score == 18 / 20


def test_what_does_not_change_while_a_version_is_the_head_is_asked_once(house: House, questions: Questions) -> None:
    house.live(("a", "1"))
    questions.skills = None

    rounds(house, 3)

    assert questions.shares.count("inside") == questions.shares.count("outside") == 1
    figures = found(house)
    assert (figures["locality_inside"].score, figures["locality_inside"].n) == (0.75, 50)
    assert "capability" not in figures


def test_the_base_itself_is_not_asked(house: House, questions: Questions) -> None:
    house.worker.drain()

    rounds(house)

    assert not questions.asked and not questions.shares


def test_a_round_is_ended_on_the_version_it_was_begun_on_although_the_head_moves(house: House, questions: Questions) -> None:
    house.live(("a", "1"))
    begun = house.head.number
    names = iter("bcdefgh")
    questions.during = lambda: house.live((next(names), "2")) and None  # type: ignore[func-returns-value]
    rounds(house)
    questions.during = lambda: None

    with house.store.read() as connection:
        own = measurements.latest(connection, begun)
        of_the_head = measurements.nearest(connection, house.head.number)
    assert house.head.number > begun
    assert (own["locality_inside"].score, own["capability"].score) == (0.75, 0.9)
    assert of_the_head["locality_inside"] == own["locality_inside"]


def test_under_a_stream_of_edits_rounds_come_to_an_end_and_the_cadence_hears_of_capability(
    house: House, questions: Questions
) -> None:
    house.live(*((f"n{number}", "1") for number in range(4)))
    questions.skills = 0.5
    hands = [0.0]
    monitor = Monitor(house.parts, now=lambda: hands[0])
    for second in range(70, 80):
        hands[0] = float(second)
        monitor.step()
        house.live((f"n{second % 4}", str(second)))  # a new version after every piece

    with house.store.read() as connection:
        standing = read_cadence_inputs(connection, house.parts)
    assert standing.capability == 0.5


def test_a_round_is_left_when_its_version_is_collected(house: House, questions: Questions) -> None:
    house.post(*((f"n{number}", "1") for number in range(12)))
    house.worker.drain()
    begun = house.head.number
    hands = [60.0]
    monitor = Monitor(house.parts, now=lambda: hands[0])
    hands[0] = 120.0
    assert monitor.step()
    house.live(("another", "1"))
    with house.store.write() as connection:
        versions.collect(connection, [begun])

    assert not monitor.step()
    assert len(questions.asked) == 1 and not questions.shares


def test_a_purge_in_the_middle_of_a_round_does_not_end_the_monitor(house: House, questions: Questions) -> None:
    (a,) = house.live(("a", "1"))
    hands = [60.0]
    monitor = Monitor(house.parts, now=lambda: hands[0])
    hands[0] = 120.0
    house.retract(a)
    house.worker.drain()
    house.live(("b", "2"))
    assert monitor.step()
    purge(house.parts, edit_ids=[a.id], by="ann")

    while monitor.step():
        pass
    assert {"locality_inside", "retention"} <= found(house).keys()


def test_nothing_is_asked_before_the_pause_is_over_or_without_questions(
    house: House, questions: Questions, tmp_path: Path
) -> None:
    house.live(("a", "1"))
    assert not Monitor(house.parts, now=lambda: 0.0).step()
    (tmp_path / "silent").mkdir()
    silent = new_house(tmp_path / "silent")
    silent.live(("a", "1"))

    assert not rounds(silent).step()
    assert not questions.asked
    silent.close()


def test_the_cadence_hears_of_it(house: House, questions: Questions) -> None:
    house.live(("a", "1"), ("b", "2"))
    questions.inside, questions.forgotten = 0.6, {"a"}

    rounds(house)

    with house.store.read() as connection:
        standing = read_cadence_inputs(connection, house.parts)
    assert (standing.retention, standing.locality, standing.locality_then) == (0.5, 0.6, 1.0)


def standing(house: House) -> CadenceInputs:
    with house.store.read() as connection:
        return read_cadence_inputs(connection, house.parts)


def shown(house: House, number: int | None = None) -> dict[str, tuple[int, float]]:
    """What a client reads of a version: by name, which version was asked, and what that came to."""
    with house.store.read() as connection:
        version = versions.get(connection, house.head.number if number is None else number)
        return {name: (one.version, one.score) for name, one in details_of(connection, version)["measured"].items()}


def test_what_was_not_asked_of_a_version_is_shown_of_the_nearest_one_before_it(house: House) -> None:
    house.live(("a", "1"))
    rounds(house)
    asked = house.head.number
    house.live(("b", "2"), ("c", "3"))

    assert shown(house)["capability"] == shown(house, asked)["capability"] == (asked, 0.9)
    assert shown(house)["retention"] == (house.head.number, 1.0)
    assert "capability" not in shown(house, 0)


def test_after_a_rollback_the_figures_are_those_of_the_version_that_was_restored(house: House, questions: Questions) -> None:
    house.live(("a", "1"))
    rounds(house)
    good = house.head.number
    house.live(("b", "2"))
    questions.skills = 0.1
    rounds(house)
    house.live(("c", "3"))
    house.roll_back(good)
    assert shown(house)["capability"] == (good, 0.9)

    house.live(("d", "4"))

    assert shown(house)["capability"] == (good, 0.9)
    assert shown(house, good + 2)["capability"] == (good + 1, 0.1)


@pytest.mark.parametrize("mode", ["major", "minor", "rollback"])
def test_a_figure_from_before_the_tensors_became_what_they_are_makes_nothing_due(
    house: House, questions: Questions, mode: str
) -> None:
    house.live(("a", "1"))
    house.retrain()
    house.worker.drain()
    good = house.head.number
    house.live(("b", "2"))
    questions.skills = 0.1
    rounds(house)
    assert standing(house).capability == 0.1

    if mode == "rollback":
        house.roll_back(good)
    else:
        house.retrain(mode)  # type: ignore[arg-type]
    house.worker.drain()

    assert standing(house).capability is None
    house.live(("c", "3"))
    assert standing(house).capability is None
    questions.skills = 1.0
    rounds(house)
    assert standing(house).capability == 1.0
