"""What one process cannot read is that process' own state: nothing is said about it in the database, and it is tried again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.errors import Conflict, Unavailable, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_store import PATIENT, House, new_house

SETTINGS = LifecycleSettings(cadence=PATIENT, judge_s=0.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=SETTINGS)
    yield made
    made.close()


def file_of(house: House, number: int) -> Path:
    return house.folder / f"{house.versions()[number].digest}.safetensors"


def rows(house: House) -> list[tuple[int, VersionStatus]]:
    return [(version.number, version.status) for version in house.versions()]


def test_checkpoints_that_are_not_mounted_stop_a_start_and_are_believed_when_they_are_back(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    before, aside = rows(house), house.folder.with_name("unmounted")
    house.folder.rename(aside)
    house.close()

    with pytest.raises(Conflict, match="mount it"):
        house.again()
    assert not house.folder.exists()
    aside.rename(house.folder)
    again = house.again()

    assert again.opened.degraded is None
    assert (again.says("a"), again.says("b")) == ("1", "2")
    assert rows(again) == before
    again.close()


def test_a_head_that_cannot_be_read_here_is_stood_in_for_and_followed_as_soon_as_it_can(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    path, before = file_of(house, 2), rows(house)
    aside = path.rename(path.with_suffix(".away"))
    house = house.again()

    assert house.opened.version == 1 and "version 2" in str(house.opened.degraded)
    assert (house.says("a"), house.says("b")) == ("1", "base of prompt:b")
    house.worker.drain()
    assert rows(house) == before and house.head.number == 2

    aside.rename(path)
    house.worker.drain()
    assert house.says("b") == "2"
    assert house.parts.follower.degraded is None
    assert rows(house) == before
    house.close()


def test_edits_wait_unharmed_while_the_head_cannot_be_read(house: House) -> None:
    house.live(("a", "1"))
    path = file_of(house, 1)
    aside = path.rename(path.with_suffix(".away"))
    house = house.again()
    (b,) = house.post(("b", "2"))
    for _ in range(5):
        with pytest.raises(Unavailable):
            house.worker.step()
    assert not house.edit(b).status.is_settled

    aside.rename(path)
    house.worker.drain()

    assert house.edit(b).status.is_live and house.edit(b).error is None
    assert (house.says("a"), house.says("b")) == ("1", "2")
    house.close()


def test_a_process_that_cannot_read_the_head_leaves_the_lease_to_one_that_can(house: House) -> None:
    house.live(("a", "1"))
    path = file_of(house, 1)
    house.worker.stop()
    aside = path.rename(path.with_suffix(".away"))
    blind = House(house.url, house.folder, ledger=house.ledger, settings=SETTINGS, alone=False)
    blind.worker.step()
    assert blind.worker.fence is None

    aside.rename(path)
    seeing = House(house.url, house.folder, ledger=house.ledger, settings=SETTINGS, alone=False)
    seeing.post(("b", "2"))
    seeing.worker.drain()

    assert seeing.says("b") == "2"
    blind.close()
    seeing.close()


def test_a_rollback_to_what_cannot_be_read_now_is_refused_and_works_later(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    path = file_of(house, 1)
    aside = path.rename(path.with_suffix(".away"))
    house.parts.overlays.forget(path.stem)
    before = rows(house)

    with pytest.raises(Unreadable):
        house.roll_back(1)
    house.worker.drain()
    assert rows(house) == before

    aside.rename(path)
    assert house.roll_back(1).restored == 1


def test_a_version_whose_right_bytes_were_put_back_is_believed_and_unmarked(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    path = file_of(house, 1)
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    house = house.again()
    with pytest.raises(Exception, match="not those it was written with"):
        house.roll_back(1)
    house.worker.drain()
    assert dict(rows(house))[1] is VersionStatus.CORRUPT

    path.write_bytes(right)
    house.worker.drain()

    assert dict(rows(house))[1] is VersionStatus.PUBLISHED
    assert house.event_types().count("version.healed") == 1
    assert house.roll_back(1).restored == 1
    house.close()


def test_versions_that_an_older_release_called_corrupt_for_nothing_are_healed_at_a_start(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    with house.store.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET status = 'corrupt' WHERE number > 0")

    house = house.again()
    house.worker.drain()

    assert house.opened.degraded is None and house.says("b") == "2"
    assert {status for _, status in rows(house)} == {VersionStatus.PUBLISHED}
    house.close()


def test_a_damaged_file_is_read_again_only_when_it_has_changed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.live(("a", "1"), ("b", "2"))
    path = file_of(house, 1)
    path.write_bytes(b"damaged")
    house = house.again()
    reads: list[str] = []
    load = __import__("service.lm.checkpoint", fromlist=["load"]).load
    monkeypatch.setattr("service.lm.checkpoint.load", lambda folder, digest: reads.append(digest) or load(folder, digest))

    for _ in range(3):
        with pytest.raises(Exception, match=r"damaged|written with"):
            house.parts.overlays.of(house.versions()[1])

    assert reads == [path.stem] * 2  # wrong bytes are read twice before they are believed
    os.utime(path, ns=(1, 1))
    with pytest.raises(Exception, match="written with"):
        house.parts.overlays.of(house.versions()[1])
    assert len(reads) == 4
    house.close()


def test_only_the_holder_of_the_lease_moves_a_damaged_head(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    file_of(house, 2).write_bytes(b"damaged")
    epoch = house.parts.follower.current.epoch

    other = House(house.url, house.folder, ledger=house.ledger, settings=SETTINGS, alone=False)
    for _ in range(3):
        other.worker.step()

    assert other.worker.fence is None and other.opened.version == 1
    assert house.head.number == 2 and dict(rows(house))[2] is VersionStatus.PUBLISHED
    assert house.parts.follower.current.epoch == epoch
    other.close()


def test_a_failure_to_load_says_nothing_of_a_head_that_was_swapped_in_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.live(("a", "1"), ("b", "2"))
    other = House(house.url, house.folder, ledger=house.ledger, settings=SETTINGS, alone=False)
    house.live(("c", "3"))

    def rolled_back_while_it_loads(_: object) -> None:
        monkeypatch.undo()
        other.roll_back(1)
        raise Unreadable("the disk is slow")

    monkeypatch.setattr(other.parts.overlays, "of", rolled_back_while_it_loads)
    other.parts.follower.catch_up()

    assert other.parts.follower.current.version == 4
    assert (other.parts.follower.degraded, other.parts.follower.is_unreadable) == (None, False)
    other.close()


def test_a_trash_that_cannot_be_looked_into_makes_a_checkpoint_unreadable_and_nothing_worse(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.live(("a", "1"), ("b", "2"))
    path = file_of(house, 1)
    (house.folder / "trash").mkdir()
    path.rename(house.folder / "trash" / path.name)
    house.parts.overlays.forget(path.stem)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(Unreadable):
            house.parts.overlays.of(house.versions()[1])

    assert house.roll_back(1).restored == 1


def test_no_edit_is_fitted_in_vain_while_the_checkpoints_are_away(house: House) -> None:
    house.live(("a", "1"))
    fits = len(house.ledger.fits)
    aside = house.folder.rename(house.folder.with_name("unmounted"))
    (b,) = house.post(("b", "2"))

    for _ in range(3):
        house.worker.step()
    assert len(house.ledger.fits) == fits and not house.edit(b).status.is_settled
    assert "checkpoints/store.json is not there" in str(house.parts.overlays.note)

    aside.rename(house.folder)
    house.worker.drain()
    assert house.says("b") == "2" and house.parts.overlays.note is None
