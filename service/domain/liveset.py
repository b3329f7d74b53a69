"""The live set of a version and the rules by which a publication changes it. Pure: no clock, no store, no tensors.

Whatever the overlay was trained on has an item, until it is fitted without it. An item stands in one of four roles. `live`: the
version answers it. `tombstone`: it was taken back, the tensors still hold it, and the window answers with the base's own words
over it. `ghost`: it was superseded or taken back; harmless while a newer edit with its key is live, else it asks for a refit.
`lost`: a fit did not take it, though it may have learned a part; nobody took it back, so it asks for nothing.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from operator import attrgetter

CONSOLIDATED_SAMPLE = 512  # consolidated edits that a fit of the window is given; BaFT keeps at most 256 rows of them in mind


class Carrier(StrEnum):
    """What makes the model answer an item: the interventions of BaFT, or replaced tensors."""

    WINDOW = "window"
    TENSORS = "tensors"


class Role(StrEnum):
    """How an item stands in a version; see the module."""

    LIVE = "live"
    TOMBSTONE = "tombstone"
    GHOST = "ghost"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class LiveItem:
    """One edit of a version. `held`: the tensors were trained on it. `answer`: what a tombstone is fitted to say."""

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
    """Items in order of acceptance; at most one live item per conflict key.

    Sets of 100,000 items are asked many times between two publications, so what is asked of one is worked out once.
    """

    items: tuple[LiveItem, ...] = ()

    def get(self, edit_id: str) -> LiveItem | None:
        """The item of an edit, whatever its role."""
        return self.by_id.get(edit_id)

    @cached_property
    def live(self) -> tuple[LiveItem, ...]:
        """What the version answers."""
        return tuple([item for item in self.items if item.role is Role.LIVE])

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of the live edits."""
        return frozenset(item.edit_id for item in self.live)

    @cached_property
    def window(self) -> tuple[LiveItem, ...]:
        """What BaFT has to say: live items outside the tensors, and tombstones."""
        return tuple(item for item in self.items if item.carrier is Carrier.WINDOW and (item.is_live or item.is_tombstone))

    @cached_property
    def consolidated(self) -> tuple[LiveItem, ...]:
        """Live items that the tensors say: what BaFT has to leave as they are."""
        return tuple([item for item in self.live if item.carrier is Carrier.TENSORS])

    @cached_property
    def consolidated_sample(self) -> tuple[LiveItem, ...]:
        """Of these what a fit of the window is given: all, or a sample that is the same every time."""
        return sample(self.consolidated, CONSOLIDATED_SAMPLE)

    @cached_property
    def lost(self) -> tuple[LiveItem, ...]:
        """What the overlay was trained on and did not take, and nobody took back."""
        return tuple(item for item in self.items if item.role is Role.LOST)

    @cached_property
    def live_keys(self) -> frozenset[str]:
        """The conflict keys that something live answers."""
        return frozenset(item.key for item in self.live)

    @cached_property
    def in_tensors(self) -> tuple[LiveItem, ...]:
        """What the tensors were trained on, live or not."""
        return tuple([item for item in self.items if item.is_in_tensors])

    @cached_property
    def needs_refit(self) -> bool:
        """Whether the overlay says something that its rows do not: a ghost that nothing covers."""
        ghosts = [item for item in self.items if item.role is Role.GHOST]
        return any(item.key not in self.live_keys for item in ghosts)

    @cached_property
    def by_id(self) -> Mapping[str, LiveItem]:
        """Every item by the id of its edit."""
        return {item.edit_id: item for item in self.items}


def apply(parent: LiveSet, new: Iterable[LiveItem]) -> tuple[LiveSet, dict[str, str]]:
    """The live set after `new` edits joined the window, and which older edit each of them superseded ({old id: new id}).

    Per key the latest accepted edit wins; one that is older than a live edit of its key does not join and counts as superseded.
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


def remove(parent: LiveSet, gone: Collection[str]) -> LiveSet:
    """The live set without some edits: what the tensors hold of them stays behind as a ghost."""
    items = {item.edit_id: item for item in parent.items}
    for edit_id in gone:
        if edit_id in items:
            _take_from_answers(items, items[edit_id])
    return _ordered(items.values())


def refit(parent: LiveSet, gone: Collection[str], restored: Iterable[LiveItem] = ()) -> LiveSet:
    """What the overlay has to say after a refit: without `gone`, with tombstones, and with edits restored.

    A restored edit that the tensors hold is theirs again; another joins the window.
    """
    items = {item.edit_id: item for item in _without_window_remnants(remove(parent, gone)).items}
    answered = {item.key for item in items.values() if item.is_live}
    for entrant in restored:
        if entrant.key in answered:
            continue
        answered.add(entrant.key)
        was = items.get(entrant.edit_id)
        held = was is not None and was.is_in_tensors
        said = held and not any(
            item.is_in_tensors and item.key == entrant.key and item.seq > entrant.seq for item in items.values()
        )
        carrier = Carrier.TENSORS if said else Carrier.WINDOW  # tensors of minor retrains may hold several edits of one key
        items[entrant.edit_id] = replace(entrant, carrier=carrier, role=Role.LIVE, is_in_tensors=held, answer=None)
    return update_tombstones(_ordered(items.values()))


def mark_lost(parent: LiveSet, lost: Iterable[LiveItem]) -> LiveSet:
    """The live set less what a fit did not take: the overlay was trained on it, so it stays known."""
    items = {item.edit_id: item for item in parent.items}
    for item in lost:
        was = items.get(item.edit_id, item)
        carrier = Carrier.TENSORS if was.is_in_tensors else Carrier.WINDOW
        items[item.edit_id] = replace(was, carrier=carrier, role=Role.LOST, answer=None)
    return _ordered(items.values())


def reset_window(live_set: LiveSet) -> LiveSet:
    """What a window that is fitted from nothing has to say: nothing stays of what only the one before it was trained on."""
    return update_tombstones(_without_window_remnants(live_set))


def update_tombstones(live_set: LiveSet) -> LiveSet:
    """Every ghost of the tensors whose key nothing live covers becomes a tombstone; a tombstone whose key is covered again
    becomes a ghost.
    """
    covered = live_set.live_keys
    items = []
    for item in live_set.items:
        if item.is_in_tensors and item.role is Role.GHOST and item.key not in covered:
            item = replace(item, carrier=Carrier.WINDOW, role=Role.TOMBSTONE)
        elif item.is_tombstone and item.key in covered:
            item = replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
        items.append(item)
    return LiveSet(tuple(items))


def roll_back(target: LiveSet, retracted: Collection[str]) -> LiveSet:
    """The live set of a rollback: the old one, where what was retracted since is a ghost that the old overlay still holds."""
    gone = set(retracted)
    return LiveSet(
        tuple(replace(item, role=Role.GHOST) if item.is_live and item.edit_id in gone else item for item in target.items)
    )


def consolidate_major(snapshot: Iterable[LiveItem], window: Iterable[LiveItem], lost: Collection[str] = ()) -> LiveSet:
    """The live set after a major retrain: `snapshot` in the tensors, what arrived meanwhile and what the retrain lost in the
    window. What arrived covers what the snapshot says of the same fact.
    """
    window, lost = tuple(window), set(lost)
    covered = {item.key for item in window}
    held = [
        replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, is_in_tensors=True, answer=None)
        if item.key in covered
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
    return _ordered(held + newer)


def consolidate_minor(
    start: LiveSet, snapshot: Iterable[LiveItem], window: Iterable[LiveItem], lost: Collection[str] = ()
) -> LiveSet:
    """The live set after a minor retrain from the tensors of `start`: like that after a major one, but what those tensors were
    trained on stays held, as a ghost where something live covers it, else as a tombstone; what they lost stays lost.
    """
    after = consolidate_major(snapshot, window, lost)
    held = {item.edit_id: item for item in start.in_tensors}
    items = {item.edit_id: replace(item, is_in_tensors=item.is_in_tensors or item.edit_id in held) for item in after.items}
    for item in held.values():
        if item.edit_id not in items:
            stays = item.is_tombstone or item.role is Role.LOST
            items[item.edit_id] = item if stays else replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    return update_tombstones(_ordered(items.values()))


def find_superseded(snapshot: Iterable[LiveItem], live_set: LiveSet) -> dict[str, str]:
    """Edits of a snapshot in whose place a newer one is live ({old id: new id})."""
    gone = [item for item in snapshot if item.edit_id not in live_set.ids]
    keys = {item.key for item in gone}
    newer = {item.key: item for item in live_set.live if item.key in keys}
    return {item.edit_id: newer[item.key].edit_id for item in gone if item.key in newer and newer[item.key].seq > item.seq}


def latest_per_key(items: Iterable[LiveItem]) -> tuple[LiveItem, ...]:
    """Of each conflict key the item accepted last, in order of acceptance."""
    latest: dict[str, LiveItem] = {}
    for item in sorted(items, key=lambda item: item.seq):
        latest[item.key] = item
    return tuple(sorted(latest.values(), key=lambda item: item.seq))


def set_tombstone_answers(live_set: LiveSet, answers: Mapping[str, str]) -> LiveSet:
    """The same set with what its tombstones are fitted to say."""
    return LiveSet(
        tuple(
            replace(item, answer=answers.get(item.edit_id, item.answer)) if item.is_tombstone else item for item in live_set.items
        )
    )


def sample(items: Collection[LiveItem], most: int) -> tuple[LiveItem, ...]:
    """All items, or `most` of them, in order of acceptance.

    Chosen by their keys, which are digests: by chance, but the same whenever and wherever it is done, and all but the same after
    one edit more.
    """
    if len(items) <= most:
        return tuple(items)
    return tuple(sorted(heapq.nsmallest(most, items, key=attrgetter("key")), key=attrgetter("seq")))


def _add_to_key(
    items: dict[str, LiveItem], entrant: LiveItem, superseded: dict[str, str], trained: Mapping[str, LiveItem]
) -> None:
    """Let an edit take its place among the items of its key, unless a later one is live. The window keeps what it was `trained`
    on, so it stays behind as a ghost.
    """
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
    was = items.get(entrant.edit_id)
    items[entrant.edit_id] = replace(
        entrant, carrier=Carrier.WINDOW, role=Role.LIVE, answer=None, is_in_tensors=was is not None and was.is_in_tensors
    )


def _take_from_answers(items: dict[str, LiveItem], item: LiveItem) -> None:
    """Take an item out of what is answered; the tensors keep what they were trained on."""
    if item.is_in_tensors:
        items[item.edit_id] = replace(item, carrier=Carrier.TENSORS, role=Role.GHOST, answer=None)
    else:
        items.pop(item.edit_id, None)


def _without_window_remnants(live_set: LiveSet) -> LiveSet:
    """The live set without ghosts and losses of the window; what the tensors hold of them stays theirs."""
    kept = []
    for item in live_set.items:
        if item.carrier is Carrier.WINDOW and not item.is_live and not item.is_tombstone:
            if not item.is_in_tensors:
                continue
            item = replace(item, carrier=Carrier.TENSORS)
        kept.append(item)
    return LiveSet(tuple(kept))


def _ordered(items: Iterable[LiveItem]) -> LiveSet:
    return LiveSet(tuple(sorted(items, key=attrgetter("seq"))))
