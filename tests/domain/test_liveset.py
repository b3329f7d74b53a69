"""The rules of the live set: what joins, what leaves, and what the overlay then still has to be taught."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.domain import liveset
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role


def item(name: str, seq: int, **given: object) -> LiveItem:
    """An item whose key is the first letter of its name."""
    return LiveItem(edit_id=name, key=name[0], seq=seq, **given)  # type: ignore[arg-type]


def consolidated(*items: LiveItem) -> LiveSet:
    return liveset.consolidate_major(items, ())


def roles(live_set: LiveSet) -> dict[str, tuple[str, str]]:
    return {one.edit_id: (str(one.role), str(one.carrier)) for one in live_set.items}


def test_a_new_edit_joins_the_window() -> None:
    after, superseded = liveset.apply(LiveSet(), [item("a1", 1)])

    assert roles(after) == {"a1": ("live", "window")}
    assert superseded == {}


def test_the_latest_edit_of_a_key_supersedes_the_one_before() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    after, superseded = liveset.apply(before, [item("a2", 3)])

    assert roles(after) == {"a1": ("ghost", "window"), "b1": ("live", "window"), "a2": ("live", "window")}
    assert superseded == {"a1": "a2"}
    assert not after.needs_refit


def test_of_edits_that_enter_together_the_later_one_wins() -> None:
    after, superseded = liveset.apply(LiveSet(), [item("a2", 2), item("a1", 1)])

    assert after.ids == {"a2"}
    assert superseded == {"a1": "a2"}


def test_an_edit_older_than_the_live_one_of_its_key_does_not_join() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a2", 2)])

    after, superseded = liveset.apply(before, [item("a1", 1)])

    assert after == before
    assert superseded == {"a1": "a2"}


def test_a_superseded_edit_in_the_tensors_becomes_a_ghost() -> None:
    after, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])

    assert roles(after) == {"a1": ("ghost", "tensors"), "a2": ("live", "window")}
    assert not after.needs_refit


def test_retracting_an_edit_of_the_window_removes_it() -> None:
    before, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    assert roles(liveset.refit(before, ["a1"])) == {"b1": ("live", "window")}


def test_retracting_an_edit_of_the_tensors_leaves_a_tombstone_in_the_window() -> None:
    after = liveset.refit(consolidated(item("a1", 1)), ["a1"])

    assert roles(after) == {"a1": ("tombstone", "window")}
    assert [one.edit_id for one in after.window] == ["a1"]
    assert after.live == ()


def test_retracting_the_newer_edit_makes_the_older_one_in_the_tensors_a_tombstone() -> None:
    before, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])

    assert roles(liveset.refit(before, ["a2"])) == {"a1": ("tombstone", "window")}


def test_a_restored_edit_is_consolidated_if_the_tensors_hold_it_else_in_the_window() -> None:
    in_tensors, _ = liveset.apply(consolidated(item("a1", 1)), [item("a2", 2)])
    in_window, _ = liveset.apply(LiveSet(), [item("a2", 2)])

    assert roles(liveset.refit(in_tensors, ["a2"], [item("a1", 1)])) == {"a1": ("live", "tensors")}
    assert roles(liveset.refit(in_window, ["a2"], [item("a1", 1)])) == {"a1": ("live", "window")}


def test_an_edit_with_the_key_of_a_tombstone_takes_its_place() -> None:
    entombed = liveset.refit(consolidated(item("a1", 1)), ["a1"])

    after, superseded = liveset.apply(entombed, [item("a2", 2)])

    assert roles(after) == {"a1": ("ghost", "tensors"), "a2": ("live", "window")}
    assert superseded == {}


def test_a_rollback_leaves_out_later_retractions_and_needs_a_refit() -> None:
    in_window, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])
    in_tensors = consolidated(item("a1", 1), item("b1", 2))

    for target in (in_window, in_tensors):
        after = liveset.roll_back(target, {"a1"})
        assert after.ids == {"b1"}
        assert after.needs_refit
    assert not liveset.roll_back(in_window, set()).needs_refit


def test_a_refit_after_a_rollback_clears_the_window_and_leaves_tombstones() -> None:
    in_window, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    assert roles(liveset.refit(liveset.roll_back(in_window, {"a1"}), [])) == {"b1": ("live", "window")}
    assert liveset.refit(liveset.roll_back(consolidated(item("a1", 1)), {"a1"}), []).get("a1").is_tombstone  # type: ignore[union-attr]


def test_after_a_retrain_the_window_has_only_new_and_lost_edits() -> None:
    after = liveset.consolidate_major([item("a1", 1), item("b1", 2)], [item("c1", 3)], lost=["b1"])

    assert roles(after) == {"a1": ("live", "tensors"), "b1": ("live", "window"), "c1": ("live", "window")}
    assert [one.edit_id for one in after.in_tensors] == ["a1", "b1"]


def test_a_retrain_forgets_tombstones_and_ghosts() -> None:
    before, _ = liveset.apply(consolidated(item("a1", 1), item("b1", 2)), [item("a2", 3)])

    after = liveset.consolidate_major(before.live, ())

    assert roles(after) == {"b1": ("live", "tensors"), "a2": ("live", "tensors")}


def test_answers_are_given_to_tombstones_only() -> None:
    entombed = liveset.refit(consolidated(item("a1", 1), item("b1", 2)), ["a1"])

    answered = liveset.set_tombstone_answers(entombed, {"a1": "what the base says", "b1": "no"})

    assert {one.edit_id: one.answer for one in answered.items} == {"a1": "what the base says", "b1": None}


def test_the_role_says_whether_an_item_is_live_or_a_tombstone() -> None:
    assert item("a1", 1).is_live and not item("a1", 1).is_tombstone
    assert item("a1", 1, role=Role.TOMBSTONE, carrier=Carrier.WINDOW).is_tombstone


def test_the_latest_per_key_is_kept_in_order_of_acceptance() -> None:
    found = liveset.latest_per_key([item("b1", 2), item("a1", 1), item("a2", 3)])

    assert [one.edit_id for one in found] == ["b1", "a2"]


def test_a_sample_is_all_items_or_always_the_same_ones_in_order_of_acceptance() -> None:
    few = [item(name, seq) for seq, name in enumerate("dbca")]

    assert liveset.sample(few, 4) == tuple(few)
    assert [one.edit_id for one in liveset.sample(few, 2)] == ["b", "a"]
    assert liveset.sample([*few, item("z", 9)], 2) == liveset.sample(few, 2)


def test_a_lost_item_stays_in_the_live_set_and_needs_no_refit() -> None:
    window, _ = liveset.apply(LiveSet(), [item("a1", 1), item("b1", 2)])

    after = liveset.mark_lost(window, [item("a1", 1), item("c1", 3)])
    in_tensors = liveset.mark_lost(consolidated(item("a1", 1)), [item("a1", 1)])

    assert roles(after) == {"a1": ("lost", "window"), "b1": ("live", "window"), "c1": ("lost", "window")}
    assert roles(in_tensors) == {"a1": ("lost", "tensors")}
    assert not after.needs_refit and not in_tensors.needs_refit
    assert [one.edit_id for one in after.lost] == ["a1", "c1"]


def test_a_reset_window_forgets_its_lost_edits_and_the_tensors_keep_theirs() -> None:
    window, _ = liveset.apply(consolidated(item("a1", 1)), [item("b1", 2), item("b2", 3)])
    window, _ = liveset.apply(window, [item("b3", 4), item("c1", 5)])
    lost = liveset.mark_lost(window, [item("a1", 1), item("c1", 5)])
    assert roles(lost)["b2"] == ("ghost", "window")

    after = liveset.reset_window(lost)

    assert roles(after) == {"a1": ("lost", "tensors"), "b3": ("live", "window")}
    assert roles(liveset.refit(lost, [])) == roles(after)


def test_a_lost_item_becomes_a_tombstone_only_after_its_retraction() -> None:
    lost = liveset.mark_lost(consolidated(item("a1", 1)), [item("a1", 1)])

    assert roles(liveset.update_tombstones(lost)) == {"a1": ("lost", "tensors")}
    assert roles(liveset.refit(lost, ["a1"])) == {"a1": ("tombstone", "window")}


def test_a_lost_item_stays_lost_under_a_newer_edit_and_a_minor_retrain() -> None:
    lost = liveset.mark_lost(consolidated(item("a1", 1)), [item("a1", 1)])

    covered, superseded = liveset.apply(lost, [item("a2", 2)])

    assert roles(covered) == {"a1": ("lost", "tensors"), "a2": ("live", "window")}
    assert superseded == {}
    assert roles(liveset.consolidate_minor(covered, covered.live, [])) == {"a1": ("lost", "tensors"), "a2": ("live", "tensors")}


def test_a_snapshot_edit_is_superseded_if_a_newer_edit_of_its_key_is_live() -> None:
    snapshot = [item("a1", 1), item("b1", 2), item("c1", 3)]
    now, _ = liveset.apply(LiveSet(), [item("a2", 4), item("b1", 2)])

    assert liveset.find_superseded(snapshot, now) == {"a1": "a2"}


def test_edits_that_arrive_during_a_retrain_win_over_its_snapshot() -> None:
    after = liveset.consolidate_major([item("a1", 1), item("b1", 2)], [item("a2", 3)], lost=["a1"])

    assert roles(after) == {"a1": ("ghost", "tensors"), "b1": ("live", "tensors"), "a2": ("live", "window")}
    assert not after.needs_refit


# The rules as they were before they were made fit for 100,000 items: plain, one item at a time, and slow.
def plain_apply(parent: LiveSet, new: Iterable[LiveItem]) -> tuple[LiveSet, dict[str, str]]:
    items = {one.edit_id: one for one in parent.items}
    superseded: dict[str, str] = {}
    for entrant in sorted(new, key=lambda one: one.seq):
        rival = next((one for one in items.values() if one.is_live and one.key == entrant.key and one != entrant), None)
        if rival is not None and rival.edit_id != entrant.edit_id and rival.seq > entrant.seq:
            superseded[entrant.edit_id] = rival.edit_id
            continue
        for one in [one for one in items.values() if one.key == entrant.key]:
            if one.is_live and one.edit_id != entrant.edit_id:
                superseded[one.edit_id] = entrant.edit_id
            if one.role is Role.LOST:
                continue
            plain_leave(items, one)
            if not one.is_in_tensors and parent.get(one.edit_id) is not None:
                items[one.edit_id] = replace(one, role=Role.GHOST)
        held = entrant.edit_id in items and items[entrant.edit_id].is_in_tensors
        items[entrant.edit_id] = replace(entrant, carrier=Carrier.WINDOW, role=Role.LIVE, answer=None, is_in_tensors=held)
    return plain_set(items), superseded


def plain_refitted(parent: LiveSet, gone: Collection[str], restored: Iterable[LiveItem]) -> LiveSet:
    items = {one.edit_id: one for one in parent.items}
    for one in list(items.values()):
        if one.edit_id in gone:
            plain_leave(items, one)
        elif one.carrier is Carrier.WINDOW and one.role in (Role.GHOST, Role.LOST):
            items.pop(one.edit_id)
            if one.is_in_tensors:
                items[one.edit_id] = replace(one, carrier=Carrier.TENSORS)
    for entrant in restored:
        if not any(one.is_live and one.key == entrant.key for one in items.values()):
            held = entrant.edit_id in items and items[entrant.edit_id].is_in_tensors
            newer = any(one.is_in_tensors and one.key == entrant.key and one.seq > entrant.seq for one in items.values())
            carrier = Carrier.TENSORS if held and not newer else Carrier.WINDOW
            items[entrant.edit_id] = replace(entrant, carrier=carrier, role=Role.LIVE, is_in_tensors=held, answer=None)
    covered = {one.key for one in items.values() if one.is_live}
    for one in items.values():
        if one.is_in_tensors and one.role is Role.GHOST and one.key not in covered:
            items[one.edit_id] = replace(one, carrier=Carrier.WINDOW, role=Role.TOMBSTONE)
        elif one.is_tombstone and one.key in covered:
            items[one.edit_id] = replace(one, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    return plain_set(items)


def plain_leave(items: dict[str, LiveItem], one: LiveItem) -> None:
    if one.is_in_tensors:
        items[one.edit_id] = replace(one, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    else:
        items.pop(one.edit_id, None)


def plain_set(items: dict[str, LiveItem]) -> LiveSet:
    return LiveSet(tuple(sorted(items.values(), key=lambda one: one.seq)))


@given(st.data())
def test_histories_of_live_sets_are_those_of_the_plain_rules(data: st.DataObject) -> None:
    pool = [item(f"{key}{seq}", seq) for seq, key in enumerate(data.draw(st.text("abcd", min_size=1, max_size=14)))]
    some = st.lists(st.sampled_from(pool), unique=True, max_size=5)
    now = LiveSet()

    for step in data.draw(st.lists(st.sampled_from(["apply", "refit", "retrain", "roll back", "lose"]), max_size=8)):
        chosen = data.draw(some)
        ids = [one.edit_id for one in chosen]
        if step == "apply":
            after, expected = liveset.apply(now, chosen), plain_apply(now, chosen)
        elif step == "refit":
            gone = data.draw(some)
            back = [one for one in chosen if one not in gone]
            after, expected = [
                (made, {})
                for made in (
                    liveset.refit(now, [one.edit_id for one in gone], back),
                    plain_refitted(now, [one.edit_id for one in gone], back),
                )
            ]
        elif step == "retrain":
            made = liveset.consolidate_major(now.live, [one for one in pool if now.get(one.edit_id) is None][:1], ids)
            after = expected = (made, {})
        elif step == "lose":
            after = expected = (liveset.mark_lost(now, [one for one in now.live if one.edit_id in ids]), {})
        else:
            after = expected = (liveset.roll_back(now, ids), {})
        assert after == expected
        now = after[0]
        assert all(now.get(one.edit_id) is one for one in now.items)
        assert now.ids == {one.edit_id for one in now.items if one.role is Role.LIVE}
        assert now.consolidated == tuple(one for one in now.items if one.is_live and one.carrier is Carrier.TENSORS)


def test_after_a_minor_retrain_the_items_of_its_start_are_ghosts_or_tombstones() -> None:
    said, covered, retracted, newer, arrived = (
        LiveItem(edit_id=name, key=key, seq=seq)
        for seq, (name, key) in enumerate([("said", "a"), ("covered", "b"), ("retracted", "c"), ("newer", "b"), ("arrived", "d")])
    )
    start = liveset.apply(liveset.consolidate_major([said, covered, retracted], []), [newer])[0]

    after = liveset.consolidate_minor(
        start, [item for item in start.live if item.edit_id != "retracted"], [arrived], lost=["newer"]
    )

    found = {item.edit_id: (item.role, item.carrier, item.is_in_tensors) for item in after.items}
    assert found == {
        "said": (Role.LIVE, Carrier.TENSORS, True),
        "covered": (Role.GHOST, Carrier.TENSORS, True),
        "retracted": (Role.TOMBSTONE, Carrier.WINDOW, True),
        "newer": (Role.LIVE, Carrier.WINDOW, True),
        "arrived": (Role.LIVE, Carrier.WINDOW, False),
    }


def test_a_tombstone_keeps_its_answer_through_a_minor_retrain() -> None:
    kept = LiveItem(edit_id="kept", key="a", seq=1)
    start = liveset.set_tombstone_answers(liveset.refit(liveset.consolidate_major([kept], []), ["kept"]), {"kept": "as before"})

    after = liveset.consolidate_minor(start, [], [])

    assert [(item.role, item.answer) for item in after.items] == [(Role.TOMBSTONE, "as before")]


def test_a_restored_edit_joins_the_window_if_the_tensors_hold_a_newer_one_of_its_key() -> None:
    older, newer = LiveItem(edit_id="older", key="a", seq=1), LiveItem(edit_id="newer", key="a", seq=2)
    start = liveset.consolidate_minor(liveset.consolidate_major([older], []), [newer], [])

    after = liveset.refit(start, ["newer"], [older])

    assert {item.edit_id: (item.role, item.carrier) for item in after.items} == {
        "older": (Role.LIVE, Carrier.WINDOW),
        "newer": (Role.GHOST, Carrier.TENSORS),
    }
