"""Which edits that wait a version states."""

import pytest

from service.domain.context_tier import choose_stated
from service.domain.liveset import LiveItem, LiveSet


def item(name: str, seq: int) -> LiveItem:
    return LiveItem(edit_id=f"{name}{seq}", key=name, seq=seq)


@pytest.mark.parametrize(
    ("waiting", "live", "most", "stated"),
    [
        ([item("a", 1), item("b", 2)], [], 9, ["a1", "b2"]),
        ([item("a", 3), item("a", 1)], [], 9, ["a3"]),
        ([item("a", 3)], [item("a", 2)], 9, ["a3"]),
        ([item("a", 1), item("b", 2)], [item("a", 3)], 9, ["b2"]),
        ([item("a", 1), item("b", 2), item("c", 3)], [], 2, ["b2", "c3"]),
        ([item("a", 1)], [], 0, []),
    ],
)
def test_of_each_fact_the_last_is_stated_unless_a_later_one_is_live(
    waiting: list[LiveItem], live: list[LiveItem], most: int, stated: list[str]
) -> None:
    assert [one.edit_id for one in choose_stated(waiting, LiveSet(tuple(live)), most)] == stated
