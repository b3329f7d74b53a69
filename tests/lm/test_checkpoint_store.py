"""What every place for checkpoints does, whatever it is made of."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from service.domain.errors import Corrupt, Unreadable
from service.lm.checkpoint import load, save, to_bytes
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.checkpoint_store import CheckpointState, StoreMark
from tests.lm.memory_checkpoints import MemoryCheckpoints
from tests.lm.test_checkpoint import make_overlay

DAY = 86_400.0
ONE, TWO = b"one checkpoint", b"another"
D1, D2, UNKNOWN = (sha256(data).hexdigest() for data in (ONE, TWO, b"never written"))


class AgingFolder(CheckpointFolder):
    """A folder whose files a test can make old, or leave half written."""

    def let_age(self) -> None:
        for path in self.path.rglob("*"):
            os.utime(path, (0, 0))

    def leave_unfinished(self) -> None:
        (self.path / f".{UNKNOWN}.17.0123abcd.tmp").write_bytes(b"half")


Place = AgingFolder | MemoryCheckpoints


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return AgingFolder(tmp_path / "new" / "folder") if request.param == "folder" else MemoryCheckpoints()


def test_a_new_place_is_empty_and_answers_every_question(place: Place) -> None:
    assert place.find_fault() and place.read_mark() is None
    assert (place.has(D1), place.identify(D1), place.is_older(D1, -DAY)) == (False, None, False)
    assert (place.discard(D1), place.restore(D1), place.remove(D1)) == (False, False, None)
    assert (place.count(), place.list_unnamed(()), place.empty_trash([D1], term_s=-DAY)) == (0, (), [])
    state, reason = place.verify(D1)
    assert state is CheckpointState.UNREADABLE and reason


def test_written_bytes_are_read_again_and_missing_ones_are_unreadable(place: Place) -> None:
    place.write(D1, ONE)
    place.write(D2, TWO)

    assert (place.read(D1), place.read(D2)) == (ONE, TWO)
    assert (place.has(D1), place.has(UNKNOWN), place.count()) == (True, False, 2)
    with pytest.raises(Unreadable):
        place.read(UNKNOWN)


@pytest.mark.parametrize("name", ["", "../secret", "A" * 64, "0" * 63])
def test_no_name_but_a_digest_is_read(place: Place, name: str) -> None:
    with pytest.raises(Corrupt):
        place.read(name)


def test_an_overlay_is_saved_and_loaded_and_wrong_bytes_are_corrupt_until_mended(place: Place) -> None:
    digest = save(make_overlay(), place)
    assert load(place, digest).tensors_digest == make_overlay().tensors_digest

    place.write(digest, to_bytes(make_overlay(seed=1)))
    with pytest.raises(Corrupt):
        load(place, digest)
    assert save(make_overlay(), place) == digest
    assert load(place, digest).adapter is not None


def test_an_identity_stays_while_the_bytes_stay_and_changes_with_each_write(place: Place) -> None:
    place.write(D1, ONE)
    before = place.identify(D1)
    place.read(D1)
    assert before is not None and place.identify(D1) == before

    place.write(D1, TWO)
    assert place.identify(D1) not in (before, None)


def test_the_state_of_a_checkpoint_is_found_by_reading_it(place: Place) -> None:
    place.write(D1, ONE)
    assert place.verify(D1) == (CheckpointState.GOOD, "")
    place.discard(D1)
    assert place.verify(D1) == (CheckpointState.IN_TRASH, "")
    place.write(D1, TWO)
    state, reason = place.verify(D1)
    assert state is CheckpointState.DAMAGED and reason  # the place counts, and not the trash


def test_a_discarded_checkpoint_is_restored_where_its_place_is_free(place: Place) -> None:
    place.write(D1, ONE)

    assert place.discard(D1) and not place.discard(D1)
    assert not place.has(D1) and place.count() == 0
    with pytest.raises(Unreadable):
        place.read(D1)
    assert place.restore(D1) and not place.restore(D1)
    assert place.read(D1) == ONE

    place.discard(D1)
    place.write(D1, TWO)
    assert not place.restore(D1) and place.read(D1) == TWO


def test_removal_is_for_good_wherever_a_checkpoint_is(place: Place) -> None:
    place.write(D1, ONE)
    place.discard(D1)
    place.write(D1, ONE)
    place.write(D2, TWO)
    place.discard(D2)

    names = [place.remove(D1), place.remove(D2)]

    assert names[0] and D1 in names[0] and names[1] and D2 in names[1]
    assert (place.remove(D1), place.restore(D1), place.restore(D2)) == (None, False, False)
    assert place.list_unnamed(()) == ()


def test_a_term_in_the_trash_begins_with_the_discard_however_old_a_checkpoint_is(place: Place) -> None:
    for digest, data in ((D1, ONE), (D2, TWO)):
        place.write(digest, data)
    place.let_age()
    place.discard(D1)
    place.discard(D2)
    assert place.empty_trash([D1], term_s=DAY) == []

    place.let_age()
    assert place.empty_trash([D1, UNKNOWN], term_s=DAY) == [D1]

    assert not place.restore(D1)
    assert place.restore(D2)  # it was not among those to be deleted


def test_a_checkpoint_in_its_place_is_not_deleted_with_the_trash(place: Place) -> None:
    place.write(D1, ONE)
    place.let_age()

    assert place.empty_trash([D1], term_s=DAY) == [] and place.has(D1)


def test_the_age_of_a_checkpoint_begins_with_its_last_write(place: Place) -> None:
    place.write(D1, ONE)
    assert not place.is_older(D1, DAY)
    place.let_age()
    assert place.is_older(D1, DAY)
    place.write(D1, ONE)
    assert not place.is_older(D1, DAY)


def test_an_unfinished_write_is_no_checkpoint_and_is_deleted_when_it_is_old(place: Place) -> None:
    place.write(D1, ONE)
    place.leave_unfinished()
    assert (place.count(), place.delete_unfinished(DAY)) == (1, 0)

    place.let_age()
    place.leave_unfinished()
    place.let_age()

    assert place.delete_unfinished(DAY) > 0 and place.delete_unfinished(DAY) == 0
    assert place.read(D1) == ONE


def test_what_no_digest_explains_is_listed_with_the_trash_and_without_the_mark(place: Place) -> None:
    place.write_mark(StoreMark("one", is_complete=True))
    place.write(D1, ONE)
    place.write(D2, TWO)
    place.discard(D2)

    assert place.list_unnamed({D1, D2}) == ()
    (unnamed,) = place.list_unnamed({D1})
    assert D2 in unnamed
    assert list(place.list_unnamed(())) == sorted(place.list_unnamed(())) and len(place.list_unnamed(())) == 2


def test_a_place_has_a_fault_until_it_is_marked_and_keeps_the_last_mark(place: Place) -> None:
    place.write(D1, ONE)
    assert place.find_fault()

    for mark in (StoreMark("one", is_complete=False), StoreMark("one", is_complete=True)):
        place.write_mark(mark)
        assert place.read_mark() == mark and place.find_fault() is None
    assert place.count() == 1
