"""Collecting touches only what a version of this store named, moves it to the trash first, and deletes it after a term."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.background.collect import collect
from service.domain.errors import Unreadable
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from service.store.heads import FenceLost
from tests.lifecycle.local_store import PATIENT, House, new_house, once

KEEPS_TWO = LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=1_000, orphan_s=0.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=KEEPS_TWO)
    yield made
    made.close()


def files_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.safetensors")}


def digests(house: House, *numbers: int) -> set[str]:
    return {str(house.versions()[number].digest) for number in numbers}


def let_age(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        os.utime(path, (0, 0))


def test_the_checkpoint_of_a_collected_version_waits_in_the_trash_before_it_is_deleted(house: House) -> None:
    house.live(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))
    let_age(house.folder)

    collect(house.parts)
    assert files_in(house.folder) == digests(house, 3, 4)
    assert files_in(house.folder / "trash") == digests(house, 1, 2)

    collect(house.parts)
    assert files_in(house.folder / "trash") == digests(house, 1, 2)  # its term began when it was moved, however old it was

    let_age(house.folder / "trash")
    collect(house.parts)
    assert files_in(house.folder / "trash") == set()


def test_a_file_that_no_version_ever_named_is_left_alone_in_the_folder_and_in_the_trash(house: House) -> None:
    house.live(("a", "1"))
    (house.folder / "trash").mkdir()
    unknown = [f"{digit * 64}.safetensors" for digit in "01"]
    strange = [house.folder / unknown[0], house.folder / "trash" / unknown[1], house.folder / "notes"]
    for path in strange:
        path.write_bytes(b"of a backup that is newer than the database")
        os.utime(path, (0, 0))

    collect(house.parts)

    assert all(path.exists() for path in strange)


def test_a_file_that_was_being_written_when_its_process_died_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=replace(KEEPS_TWO, orphan_s=60.0))
    young, old = (house.folder / f".{'0' * 64}.17.{name}.tmp" for name in ("0123abcd", "0123abce"))
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    collect(house.parts)

    assert young.exists() and not old.exists()
    house.close()


def test_bytes_that_a_version_needs_again_are_fetched_back_from_the_trash(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    digest = str(house.head.digest)
    (house.folder / "trash").mkdir()
    (house.folder / f"{digest}.safetensors").rename(house.folder / "trash" / f"{digest}.safetensors")

    again = house.again()

    assert again.opened.degraded is None and again.says("b") == "2"
    assert digest in files_in(house.folder)
    again.close()


def test_nothing_is_collected_where_the_folder_is_not_the_stores(house: House) -> None:
    house.live(*((name, "1") for name in "abcd"))
    let_age(house.folder)
    (house.folder / "store.json").unlink()

    assert collect(house.parts) == 0

    assert len(files_in(house.folder)) == 4
    assert VersionStatus.COLLECTED not in {version.status for version in house.versions()}


def test_a_worker_that_was_replaced_collects_nothing(house: House) -> None:
    house.live(*((name, "1") for name in "abcd"))
    let_age(house.folder)

    with pytest.raises(FenceLost):
        collect(house.parts, fence=(house.worker.fence or 0) - 1)

    assert len(files_in(house.folder)) == 4


def test_what_was_written_and_lost_to_another_publication_leaves_no_file(house: House) -> None:
    house.live(("a", "1"))
    (b,) = house.post(("b", "2"))
    house.ledger.during = once(lambda: house.roll_back(0))  # type: ignore[assignment]

    house.worker.drain()

    named = {str(version.digest) for version in house.versions() if version.digest}
    assert house.edit(b).status.is_live
    assert files_in(house.folder) == named


def test_bytes_that_cannot_be_written_beside_an_unmounted_disk_are_not_written(house: House) -> None:
    house.live(("a", "1"))
    aside = house.folder.with_name("elsewhere")
    house.folder.rename(aside)
    overlay = house.parts.follower.current.overlay

    with pytest.raises(Unreadable):
        house.parts.overlays.save(overlay)

    assert not house.folder.exists()
    aside.rename(house.folder)


def test_an_edit_goes_live_though_a_folder_lies_where_its_checkpoint_belongs(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = new_house(tmp_path / "one"), new_house(tmp_path / "two")
    first.live(("a", "1"))
    (second.folder / f"{first.head.digest}.safetensors" / "inside").mkdir(parents=True)

    (edit,) = second.live(("a", "1"))

    assert second.edit(edit).status.is_live and second.head.digest == first.head.digest
    assert second.again().says("a") == "1"
    assert len(list((second.folder / "trash").iterdir())) == 1
    first.close()
