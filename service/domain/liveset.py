"""The live set of a version and the rules by which a publication changes it. Pure: no clock, no store, no tensors.

Every edit that the overlay was trained on has an item, until a fit without the edit. An item has one of four roles:

- `live`: the version answers it.
- `tombstone`: it was retracted, and the tensors still hold it. The window is fitted to the base's own answer instead.
- `ghost`: it was superseded or retracted. It is harmless while a newer edit with its key is live; otherwise a refit is needed.
- `lost`: a fit did not answer it, though it may have learned a part. It was not retracted, so no refit is needed.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from operator import attrgetter

CONSOLIDATED_SAMPLE = 512  # consolidated edits that a fit of the window gets; BaFT replays at most 256 rows of them


class Carrier(StrEnum):
    """The part of the overlay that answers an item: the interventions of BaFT, or replaced tensors."""

    WINDOW = "window"
    TENSORS = "tensors"


class Role(StrEnum):
    """The role of an item in a version; see the module."""

    LIVE = "live"
    TOMBSTONE = "tombstone"
    GHOST = "ghost"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class LiveItem:
    """One edit of a version. `is_in_tensors`: the tensors were trained on it. `answer`: the answer a tombstone is fitted to."""

    edit_id: str
    key: str
    seq: int
    carrier: Carrier = Carrier.WINDOW
    role: Role = Role.LIVE
    is_in_tensors: bool = False
    answer: str | None = None

    @property
    def is_tombstone(self) -> bool:
        return self.role is Role.TOMBSTONE

    @property
    def is_live(self) -> bool:
        return self.role is Role.LIVE


@dataclass(frozen=True)
class LiveSet:
    """Items in order of submission, with at most one live item per conflict key.

    Derived properties are cached: a set of 100,000 items is read many times between two publications.
    """

    items: tuple[LiveItem, ...] = ()

    def get(self, edit_id: str) -> LiveItem | None:
        """The item of an edit, whatever its role."""
        return self.by_id.get(edit_id)

    @cached_property
    def live(self) -> tuple[LiveItem, ...]:
        """The live items."""
        return tuple([item for item in self.items if item.role is Role.LIVE])

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of the live edits."""
        return frozenset(item.edit_id for item in self.live)

    @cached_property
    def window(self) -> tuple[LiveItem, ...]:
        """The items that BaFT carries: live items outside the tensors, and tombstones."""
        return tuple(item for item in self.items if item.carrier is Carrier.WINDOW and (item.is_live or item.is_tombstone))

    @cached_property
    def consolidated(self) -> tuple[LiveItem, ...]:
        """The live items that the tensors answer. BaFT must not change their answers."""
        return tuple([item for item in self.live if item.carrier is Carrier.TENSORS])

    @cached_property
    def consolidated_sample(self) -> tuple[LiveItem, ...]:
        """The consolidated items that a fit of the window gets: all, or a sample that is the same every time."""
        return sample(self.consolidated, CONSOLIDATED_SAMPLE)

    @cached_property
    def lost(self) -> tuple[LiveItem, ...]:
        """The lost items: the overlay was trained on them and does not answer them, and they were not retracted."""
        return tuple(item for item in self.items if item.role is Role.LOST)

    @cached_property
    def live_keys(self) -> frozenset[str]:
        """The conflict keys of the live items."""
        return frozenset(item.key for item in self.live)

    @cached_property
    def in_tensors(self) -> tuple[LiveItem, ...]:
        """The items that the tensors were trained on, live or not."""
        return tuple([item for item in self.items if item.is_in_tensors])

    @cached_property
    def needs_refit(self) -> bool:
        """Whether the overlay answers something that no live item says: there is a ghost whose key has no live item."""
        ghosts = [item for item in self.items if item.role is Role.GHOST]
        return any(item.key not in self.live_keys for item in ghosts)

    @cached_property
    def by_id(self) -> Mapping[str, LiveItem]:
        """All items by the id of their edit."""
        return {item.edit_id: item for item in self.items}


def apply(parent: LiveSet, new: Iterable[LiveItem]) -> tuple[LiveSet, dict[str, str]]:
    """The live set after `new` edits joined the window, and the superseded edits ({old id: new id}).

    Per key the latest accepted edit wins. An edit that is older than the live edit of its key does not join and is superseded.
    """
    entrants = sorted(new, key=lambda item: item.seq)
    trained = parent.by_id
    of_key: dict[str, dict[str, LiveItem]] = {entrant.key: {} for entrant in entrants}
    for item in parent.items:
        if item.key in of_key:
            of_key[item.key][item.edit_id] = item
    superseded: dict[str, str] = {}
    for entrant in entrants:
        _add_to_key(of_key[entrant.key], entrant, superseded, trained)
    others = [item for item in parent.items if item.key not in of_key]
    return _ordered([*others, *(item for items in of_key.values() for item in items.values())]), superseded


def remove(parent: LiveSet, removed_ids: Collection[str]) -> LiveSet:
    """The live set without some edits. Those that the tensors hold become ghosts."""
    items = {item.edit_id: item for item in parent.items}
    for edit_id in removed_ids:
        if edit_id in items:
            _take_from_answers(items, items[edit_id])
    return _ordered(items.values())


def refit(parent: LiveSet, removed_ids: Collection[str], restored: Iterable[LiveItem] = ()) -> LiveSet:
    """The live set after a refit: without `removed_ids`, with tombstones, and with restored edits.

    A restored edit that the tensors hold is consolidated again. Any other restored edit joins the window.
    """
    items = {item.edit_id: item for item in _without_window_remnants(remove(parent, removed_ids)).items}
    live_keys = {item.key for item in items.values() if item.is_live}
    for entrant in restored:
        if entrant.key in live_keys:
            continue
        live_keys.add(entrant.key)
        known = items.get(entrant.edit_id)
        is_in_tensors = known is not None and known.is_in_tensors
        is_consolidated = is_in_tensors and not any(
            item.is_in_tensors and item.key == entrant.key and item.seq > entrant.seq for item in items.values()
        )  # tensors of minor retrains may hold several edits of one key
        carrier = Carrier.TENSORS if is_consolidated else Carrier.WINDOW
        items[entrant.edit_id] = replace(entrant, carrier=carrier, role=Role.LIVE, is_in_tensors=is_in_tensors, answer=None)
    return update_tombstones(_ordered(items.values()))


def mark_lost(parent: LiveSet, lost: Iterable[LiveItem]) -> LiveSet:
    """The live set in which some items are lost. They stay items, because the overlay was trained on them."""
    items = {item.edit_id: item for item in parent.items}
    for item in lost:
        known = items.get(item.edit_id, item)
        carrier = Carrier.TENSORS if known.is_in_tensors else Carrier.WINDOW
        items[item.edit_id] = replace(known, carrier=carrier, role=Role.LOST, answer=None)
    return _ordered(items.values())


def reset_window(live_set: LiveSet) -> LiveSet:
    """The live set for a window that is fitted from nothing: without items that only the window before was trained on."""
    return update_tombstones(_without_window_remnants(live_set))


def update_tombstones(live_set: LiveSet) -> LiveSet:
    """The live set in which every ghost in the tensors without a live edit of its key is a tombstone, and every tombstone with
    one is a ghost.
    """
    live_keys = live_set.live_keys
    items = []
    for item in live_set.items:
        if item.is_in_tensors and item.role is Role.GHOST and item.key not in live_keys:
            item = replace(item, carrier=Carrier.WINDOW, role=Role.TOMBSTONE)
        elif item.is_tombstone and item.key in live_keys:
            item = replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
        items.append(item)
    return LiveSet(tuple(items))


def roll_back(target: LiveSet, retracted: Collection[str]) -> LiveSet:
    """The live set of a rollback to `target`. Edits `retracted` since are ghosts, because the old overlay still holds them."""
    retracted_ids = set(retracted)
    return LiveSet(
        tuple(replace(item, role=Role.GHOST) if item.is_live and item.edit_id in retracted_ids else item for item in target.items)
    )


def consolidate_major(snapshot: Iterable[LiveItem], window: Iterable[LiveItem], lost: Collection[str] = ()) -> LiveSet:
    """The live set after a major retrain: `snapshot` is in the tensors; the edits of the catch-up (`window`) and the `lost` ones
    are in the window. An edit of the window wins over a snapshot edit of its key.
    """
    window, lost = tuple(window), set(lost)
    window_keys = {item.key for item in window}
    in_tensors = [
        replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, is_in_tensors=True, answer=None)
        if item.key in window_keys
        else replace(
            item,
            carrier=Carrier.WINDOW if item.edit_id in lost else Carrier.TENSORS,
            role=Role.LIVE,
            is_in_tensors=True,
            answer=None,
        )
        for item in snapshot
    ]
    newer = [replace(item, carrier=Carrier.WINDOW, role=Role.LIVE, is_in_tensors=False, answer=None) for item in window]
    return _ordered(in_tensors + newer)


def consolidate_minor(
    start: LiveSet, snapshot: Iterable[LiveItem], window: Iterable[LiveItem], lost: Collection[str] = ()
) -> LiveSet:
    """The live set after a minor retrain from the tensors of `start`.

    It is the live set after a major retrain, but the items in the tensors of `start` stay: as a ghost if an edit of their key is
    live, else as a tombstone. Their lost items stay lost.
    """
    after = consolidate_major(snapshot, window, lost)
    at_start = {item.edit_id: item for item in start.in_tensors}
    items = {item.edit_id: replace(item, is_in_tensors=item.is_in_tensors or item.edit_id in at_start) for item in after.items}
    for item in at_start.values():
        if item.edit_id not in items:
            is_unchanged = item.is_tombstone or item.role is Role.LOST
            items[item.edit_id] = item if is_unchanged else replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    return update_tombstones(_ordered(items.values()))


def find_superseded(snapshot: Iterable[LiveItem], live_set: LiveSet) -> dict[str, str]:
    """Edits of a snapshot that a newer live edit of their key superseded ({old id: new id})."""
    not_live = [item for item in snapshot if item.edit_id not in live_set.ids]
    keys = {item.key for item in not_live}
    newer = {item.key: item for item in live_set.live if item.key in keys}
    return {item.edit_id: newer[item.key].edit_id for item in not_live if item.key in newer and newer[item.key].seq > item.seq}


def latest_per_key(items: Iterable[LiveItem]) -> tuple[LiveItem, ...]:
    """The item accepted last of each conflict key, in order of submission."""
    latest: dict[str, LiveItem] = {}
    for item in sorted(items, key=lambda item: item.seq):
        latest[item.key] = item
    return tuple(sorted(latest.values(), key=lambda item: item.seq))


def set_tombstone_answers(live_set: LiveSet, answers: Mapping[str, str]) -> LiveSet:
    """The same set with the `answers` (by edit id) that its tombstones are fitted to."""
    return LiveSet(
        tuple(
            replace(item, answer=answers.get(item.edit_id, item.answer)) if item.is_tombstone else item for item in live_set.items
        )
    )


def sample(items: Collection[LiveItem], most: int) -> tuple[LiveItem, ...]:
    """All items, or `most` of them, in order of submission.

    The choice is by key digest. It is therefore uniform, the same in every process, and almost the same after one more edit.
    """
    if len(items) <= most:
        return tuple(items)
    return tuple(sorted(heapq.nsmallest(most, items, key=attrgetter("key")), key=attrgetter("seq")))


def _add_to_key(
    items: dict[str, LiveItem], entrant: LiveItem, superseded: dict[str, str], trained: Mapping[str, LiveItem]
) -> None:
    """Add an edit to the items of its key, unless a later edit is live. Items that the window was `trained` on become ghosts."""
    rival = next((item for item in items.values() if item.is_live and item != entrant), None)
    if rival is not None and rival.edit_id != entrant.edit_id and rival.seq > entrant.seq:
        superseded[entrant.edit_id] = rival.edit_id
        return
    for item in list(items.values()):
        if item.is_live and item.edit_id != entrant.edit_id:
            superseded[item.edit_id] = entrant.edit_id
        if item.role is Role.LOST:
            continue
        _take_from_answers(items, item)
        if not item.is_in_tensors and item.edit_id in trained:
            items[item.edit_id] = replace(item, role=Role.GHOST)
    known = items.get(entrant.edit_id)
    items[entrant.edit_id] = replace(
        entrant, carrier=Carrier.WINDOW, role=Role.LIVE, answer=None, is_in_tensors=known is not None and known.is_in_tensors
    )


def _take_from_answers(items: dict[str, LiveItem], item: LiveItem) -> None:
    """Take an item out of the answers. An item in the tensors becomes a ghost."""
    if item.is_in_tensors:
        items[item.edit_id] = replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    else:
        items.pop(item.edit_id, None)


def _without_window_remnants(live_set: LiveSet) -> LiveSet:
    """The live set without ghosts and lost items of the window. Those in the tensors stay, carried by the tensors."""
    items = []
    for item in live_set.items:
        if item.carrier is Carrier.WINDOW and not item.is_live and not item.is_tombstone:
            if not item.is_in_tensors:
                continue
            item = replace(item, carrier=Carrier.TENSORS)
        items.append(item)
    return LiveSet(tuple(items))


def _ordered(items: Iterable[LiveItem]) -> LiveSet:
    return LiveSet(tuple(sorted(items, key=attrgetter("seq"))))
