"""The rules of the live set: what joins, what leaves, and what the overlay then still has to be taught."""

from service.domain import liveset
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role


def item(name: str, seq: int, **given: object) -> LiveItem:
    """An item whose key is the first letter of its name."""
    return LiveItem(edit_id=name, key=name[0], seq=seq, **given)  # type: ignore[arg-type]


def consolidated(*items: LiveItem) -> LiveSet:
    return liveset.consolidate(items, ())


def roles(live_set: LiveSet) -> dict[str, tuple[str, str]]:
    return {one.edit_id: (str(one.role), str(one.carrier)) for one in live_set.items}


def test_a_new_edit_joins_the_window() -> None:
    after, superseded = liveset.apply(LiveSet(), [item("a1", 1)])

    assert roles(after) == {"a1": ("live", "window")}
    assert superseded == {}


def test_the_latest_edit_of_a_key_supersedes_the_one_before() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    after, superseded = liveset.apply(before, [item("a2", 3)])

    assert roles(after) == {"b1": ("live", "window"), "a2": ("live", "window")}
    assert superseded == {"a1": "a2"}


def test_of_edits_that_enter_together_the_later_one_wins() -> None:
    after, superseded = liveset.apply(LiveSet(), [item("a2", 2), item("a1", 1)])

    assert after.ids == {"a2"}
    assert superseded == {"a1": "a2"}


def test_an_edit_older_than_the_live_one_of_its_key_does_not_join() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a2", 2)])

    after, superseded = liveset.apply(before, [item("a1", 1)])

    assert after == before
    assert superseded == {"a1": "a2"}


def test_what_the_tensors_hold_stays_behind_as_a_ghost_that_the_newer_edit_covers() -> None:
    after, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])

    assert roles(after) == {"a1": ("ghost", "tensors"), "a2": ("live", "window")}
    assert not after.needs_refit


def test_taking_back_an_edit_of_the_window_leaves_nothing_of_it() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    assert roles(liveset.refitted(before, ["a1"])) == {"b1": ("live", "window")}


def test_taking_back_an_edit_of_the_tensors_leaves_a_tombstone_in_the_window() -> None:
    after = liveset.refitted(consolidated(item("a1", 1)), ["a1"])

    assert roles(after) == {"a1": ("tombstone", "window")}
    assert [one.edit_id for one in after.window] == ["a1"]
    assert after.live == ()


def test_taking_back_the_newer_edit_entombs_the_older_one_that_the_tensors_hold() -> None:
    before, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])

    assert roles(liveset.refitted(before, ["a2"])) == {"a1": ("tombstone", "window")}


def test_a_restored_edit_is_the_tensors_if_they_hold_it_and_joins_the_window_if_not() -> None:
    in_tensors, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])
    in_window, _ = liveset.apply(LiveSet(), [item("a2", 2)])

    assert roles(liveset.refitted(in_tensors, ["a2"], [item("a1", 1)])) == {"a1": ("live", "tensors")}
    assert roles(liveset.refitted(in_window, ["a2"], [item("a1", 1)])) == {"a1": ("live", "window")}


def test_an_edit_with_the_key_of_a_tombstone_takes_its_place() -> None:
    entombed = liveset.refitted(consolidated(item("a1", 1)), ["a1"])

    after, superseded = liveset.apply(entombed, [item("a2", 2)])

    assert roles(after) == {"a1": ("ghost", "tensors"), "a2": ("live", "window")}
    assert superseded == {}


def test_a_rollback_leaves_out_what_was_retracted_since_and_asks_for_a_refit() -> None:
    in_window, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])
    in_tensors = consolidated(item("a1", 1), item("b1", 2))

    for target in (in_window, in_tensors):
        after = liveset.roll_back(target, {"a1"})
        assert after.ids == {"b1"}
        assert after.needs_refit
    assert not liveset.roll_back(in_window, set()).needs_refit


def test_a_refit_after_a_rollback_clears_the_window_and_entombs_the_tensors() -> None:
    in_window, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    assert roles(liveset.refitted(liveset.roll_back(in_window, {"a1"}), [])) == {"b1": ("live", "window")}
    assert liveset.refitted(liveset.roll_back(consolidated(item("a1", 1)), {"a1"}), []).get("a1").tombstone  # type: ignore[union-attr]


def test_a_retrain_empties_the_window_but_for_what_arrived_and_what_it_lost() -> None:
    after = liveset.consolidate([item("a1", 1), item("b1", 2)], [item("c1", 3)], lost=["b1"])

    assert roles(after) == {"a1": ("live", "tensors"), "b1": ("live", "window"), "c1": ("live", "window")}
    assert [one.edit_id for one in after.held] == ["a1", "b1"]


def test_a_retrain_forgets_tombstones_and_ghosts() -> None:
    before, _ = liveset.apply(consolidated(item("a1", 1), item("b1", 2)), [item("a2", 3)])

    after = liveset.consolidate(before.live, ())

    assert roles(after) == {"b1": ("live", "tensors"), "a2": ("live", "tensors")}


def test_answers_are_given_to_tombstones_only() -> None:
    entombed = liveset.refitted(consolidated(item("a1", 1), item("b1", 2)), ["a1"])

    answered = liveset.with_answers(entombed, {"a1": "what the base says", "b1": "no"})

    assert {one.edit_id: one.answer for one in answered.items} == {"a1": "what the base says", "b1": None}


def test_the_role_says_whether_an_item_is_live_or_a_tombstone() -> None:
    assert item("a1", 1).is_live and not item("a1", 1).tombstone
    assert item("a1", 1, role=Role.TOMBSTONE, carrier=Carrier.WINDOW).tombstone


def test_the_latest_per_key_is_kept_in_order_of_acceptance() -> None:
    found = liveset.latest_per_key([item("b1", 2), item("a1", 1), item("a2", 3)])

    assert [one.edit_id for one in found] == ["b1", "a2"]
