"""The way of an edit from its acceptance to its taking back, on a store without a model."""

from service.domain.edit import EditStatus
from tests.lifecycle.local_service import LocalService


def test_an_accepted_edit_is_applied_and_answered(local: LocalService) -> None:
    made = local.post(("capital of Australia", "Sydney"))

    local.worker.drain()

    assert local.statuses(made) == [EditStatus.APPLIED]
    assert local.says("capital of Australia") == "Sydney"
    assert local.head.number == 1
    assert local.edit(made[0]).report == {"method": "baft", "taken": True, "scores": {"reliability": 1.0}}


def test_the_whole_story(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.worker.drain()
    assert local.statuses([a, b]) == [EditStatus.CONSOLIDATED] * 2
    assert (local.says("a"), local.says("b")) == ("1", "2")
    (c,) = local.live(("a", "3"))
    assert local.statuses([a, c]) == [EditStatus.SUPERSEDED, EditStatus.APPLIED]
    assert local.says("a") == "3"
    local.retract(c)
    local.worker.drain()
    assert local.statuses([a, c]) == [EditStatus.SUPERSEDED, EditStatus.RETRACTED]
    assert local.says("a") == "base of prompt:a"
    again = local.again()
    assert again.says("a") == "base of prompt:a" and again.says("b") == "2"
    back = again.roll_back(2)
    assert (again.says("a"), again.says("b")) == ("1", "2")
    assert again.statuses([a, b, c]) == [EditStatus.APPLIED, EditStatus.APPLIED, EditStatus.RETRACTED]
    assert back.version == again.head.number
    again.close()
