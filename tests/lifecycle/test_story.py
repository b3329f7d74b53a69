"""The way of an edit from its acceptance to its taking back, on a store without a model."""

from pathlib import Path

import pytest

from service.domain.edit import EditStatus
from tests.lifecycle.local_store import House, new_house


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = new_house(tmp_path)
    yield made
    made.close()


def test_an_accepted_edit_is_applied_and_answered(house: House) -> None:
    made = house.post(("capital of Australia", "Sydney"))

    house.worker.drain()

    assert house.statuses(made) == [EditStatus.APPLIED]
    assert house.says("capital of Australia") == "Sydney"
    assert house.head.number == 1
    assert house.edit(made[0]).report == {"method": "baft", "taken": True, "scores": {"reliability": 1.0}}


def test_the_whole_story(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    house.retrain()
    house.worker.drain()
    assert house.statuses([a, b]) == [EditStatus.CONSOLIDATED] * 2
    assert (house.says("a"), house.says("b")) == ("1", "2")
    (c,) = house.live(("a", "3"))
    assert house.statuses([a, c]) == [EditStatus.SUPERSEDED, EditStatus.APPLIED]
    assert house.says("a") == "3"
    house.retract(c)
    house.worker.drain()
    assert house.statuses([a, c]) == [EditStatus.SUPERSEDED, EditStatus.RETRACTED]
    assert house.says("a") == "base of prompt:a"
    again = house.again()
    assert again.says("a") == "base of prompt:a" and again.says("b") == "2"
    back = again.roll_back(2)
    assert (again.says("a"), again.says("b")) == ("1", "2")
    assert again.statuses([a, b, c]) == [EditStatus.APPLIED, EditStatus.APPLIED, EditStatus.RETRACTED]
    assert back.version == again.head.number
    again.close()
