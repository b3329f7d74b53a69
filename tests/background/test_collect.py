"""Collecting versions beyond the retention.

Only checkpoints that a version of this store named are moved to the trash, and they are deleted after a term.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.background.collect import collect, pin
from service.domain.errors import Conflict, Gone
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from service.store.heads import FenceLost
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service

KEEPS_TWO = LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=1_000, orphan_s=0.0)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=KEEPS_TWO)
    yield made
    made.close()


def files_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.safetensors")}


def digests(local: LocalService, *numbers: int) -> set[str]:
    return {str(local.versions()[number].digest) for number in numbers}


def let_age(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        os.utime(path, (0, 0))


def test_versions_beyond_retention_are_collected_and_answer_gone(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=3, orphan_s=0.0))
    local.live(*((name, "1") for name in "abcdefg"))
    pin(local.context, 1, author="ann")
    for path in local.folder.glob("*.safetensors"):
        os.utime(path, (0, 0))

    collect(local.context)

    collected = [version.number for version in local.versions() if version.status is VersionStatus.COLLECTED]
    assert collected == [2, 4, 5]
    # Versions 1 (pinned), 3 (every third), 6 and 7 (the last two).
    assert len(list(local.folder.glob("*.safetensors"))) == 4
    with pytest.raises(Gone):
        local.roll_back(2)
    with pytest.raises(Conflict):
        pin(local.context, 2, author="ann")
    local.close()


def test_the_checkpoint_of_a_collected_version_waits_in_the_trash_before_it_is_deleted(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))
    let_age(local.folder)

    collect(local.context)
    assert files_in(local.folder) == digests(local, 3, 4)
    assert files_in(local.folder / "trash") == digests(local, 1, 2)

    collect(local.context)
    assert files_in(local.folder / "trash") == digests(local, 1, 2)  # its term began when it was moved, however old it was

    let_age(local.folder / "trash")
    collect(local.context)
    assert files_in(local.folder / "trash") == set()


def test_a_file_that_no_version_ever_named_is_never_collected(local: LocalService) -> None:
    local.live(("a", "1"))
    (local.folder / "trash").mkdir()
    unknown = [f"{digit * 64}.safetensors" for digit in "01"]
    strange = [local.folder / unknown[0], local.folder / "trash" / unknown[1], local.folder / "notes"]
    for path in strange:
        path.write_bytes(b"of a backup that is newer than the database")
        os.utime(path, (0, 0))

    collect(local.context)

    assert all(path.exists() for path in strange)


def test_an_old_temporary_file_of_a_dead_process_is_deleted(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=replace(KEEPS_TWO, orphan_s=60.0))
    young, old = (local.folder / f".{'0' * 64}.17.{name}.tmp" for name in ("0123abcd", "0123abce"))
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    collect(local.context)

    assert young.exists() and not old.exists()
    local.close()


def test_nothing_is_collected_where_the_folder_is_not_the_stores(local: LocalService) -> None:
    local.live(*((name, "1") for name in "abcd"))
    let_age(local.folder)
    (local.folder / "store.json").unlink()

    assert collect(local.context) == 0

    assert len(files_in(local.folder)) == 4
    assert VersionStatus.COLLECTED not in {version.status for version in local.versions()}


def test_a_worker_that_was_replaced_collects_nothing(local: LocalService) -> None:
    local.live(*((name, "1") for name in "abcd"))
    let_age(local.folder)

    with pytest.raises(FenceLost):
        collect(local.context, fence=(local.worker.fence or 0) - 1)

    assert len(files_in(local.folder)) == 4
