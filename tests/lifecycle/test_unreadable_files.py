"""A file that one process cannot read is a state of that process: the database is not told, and the file is tried again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.errors import Conflict, Unavailable, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service

SETTINGS = LifecycleSettings(cadence=PATIENT, judge_s=0.0)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=SETTINGS)
    yield made
    made.close()


def file_of(local: LocalService, number: int) -> Path:
    return local.folder / f"{local.versions()[number].digest}.safetensors"


def rows(local: LocalService) -> list[tuple[int, VersionStatus]]:
    return [(version.number, version.status) for version in local.versions()]


def test_a_start_needs_mounted_checkpoints_and_succeeds_once_they_are_back(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    before, aside = rows(local), local.folder.with_name("unmounted")
    local.folder.rename(aside)
    local.close()

    with pytest.raises(Conflict, match="mount it"):
        local.again()
    assert not local.folder.exists()
    aside.rename(local.folder)
    again = local.again()

    assert again.opened.degraded is None
    assert (again.says("a"), again.says("b")) == ("1", "2")
    assert rows(again) == before
    again.close()


def test_while_the_head_is_unreadable_here_an_ancestor_answers(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    path, before = file_of(local, 2), rows(local)
    aside = path.rename(path.with_suffix(".away"))
    local = local.again()

    assert local.opened.version == 1 and "version 2" in str(local.opened.degraded)
    assert (local.says("a"), local.says("b")) == ("1", "base of prompt:b")
    local.worker.drain()
    assert rows(local) == before and local.head.number == 2

    aside.rename(path)
    local.worker.drain()
    assert local.says("b") == "2"
    assert local.context.follower.degraded is None
    assert rows(local) == before
    local.close()


def test_edits_wait_unharmed_while_the_head_cannot_be_read(local: LocalService) -> None:
    local.live(("a", "1"))
    path = file_of(local, 1)
    aside = path.rename(path.with_suffix(".away"))
    local = local.again()
    (b,) = local.post(("b", "2"))
    for _ in range(5):
        with pytest.raises(Unavailable):
            local.worker.step()
    assert not local.edit(b).status.is_settled

    aside.rename(path)
    local.worker.drain()

    assert local.edit(b).status.is_live and local.edit(b).error is None
    assert (local.says("a"), local.says("b")) == ("1", "2")
    local.close()


def test_a_process_that_cannot_read_the_head_leaves_the_lease_to_another(local: LocalService) -> None:
    local.live(("a", "1"))
    path = file_of(local, 1)
    local.worker.stop()
    aside = path.rename(path.with_suffix(".away"))
    blind = LocalService(local.url, local.folder, ledger=local.ledger, settings=SETTINGS, alone=False)
    blind.worker.step()
    assert blind.worker.fence is None

    aside.rename(path)
    seeing = LocalService(local.url, local.folder, ledger=local.ledger, settings=SETTINGS, alone=False)
    seeing.post(("b", "2"))
    seeing.worker.drain()

    assert seeing.says("b") == "2"
    blind.close()
    seeing.close()


def test_a_rollback_to_an_unreadable_version_is_refused_and_works_later(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    path = file_of(local, 1)
    aside = path.rename(path.with_suffix(".away"))
    local.context.checkpoints.forget(path.stem)
    before = rows(local)

    with pytest.raises(Unreadable):
        local.roll_back(1)
    local.worker.drain()
    assert rows(local) == before

    aside.rename(path)
    assert local.roll_back(1).restored == 1


def test_a_version_whose_right_bytes_are_restored_is_unmarked(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    path = file_of(local, 1)
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    local = local.again()
    with pytest.raises(Exception, match="not those it was written with"):
        local.roll_back(1)
    local.worker.drain()
    assert dict(rows(local))[1] is VersionStatus.CORRUPT

    path.write_bytes(right)
    local.worker.drain()

    assert dict(rows(local))[1] is VersionStatus.PUBLISHED
    assert local.event_types().count("version.healed") == 1
    assert local.roll_back(1).restored == 1
    local.close()


def test_versions_with_right_bytes_that_an_older_release_marked_are_unmarked_at_start(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    with local.store.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET status = 'corrupt' WHERE number > 0")

    local = local.again()
    local.worker.drain()

    assert local.opened.degraded is None and local.says("b") == "2"
    assert {status for _, status in rows(local)} == {VersionStatus.PUBLISHED}
    local.close()


def test_a_damaged_file_is_read_again_only_when_it_has_changed(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    local.live(("a", "1"), ("b", "2"))
    path = file_of(local, 1)
    path.write_bytes(b"damaged")
    local = local.again()
    reads: list[str] = []
    load = __import__("service.lm.checkpoint", fromlist=["load"]).load
    monkeypatch.setattr("service.lm.checkpoint.load", lambda store, digest: reads.append(digest) or load(store, digest))

    for _ in range(3):
        with pytest.raises(Exception, match=r"damaged|written with"):
            local.context.checkpoints.get_overlay(local.versions()[1])

    assert reads == [path.stem] * 2  # wrong bytes are read twice before they are believed
    os.utime(path, ns=(1, 1))
    with pytest.raises(Exception, match="written with"):
        local.context.checkpoints.get_overlay(local.versions()[1])
    assert len(reads) == 4
    local.close()


def test_only_the_holder_of_the_lease_moves_a_damaged_head(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    file_of(local, 2).write_bytes(b"damaged")
    epoch = local.context.follower.current.epoch

    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=SETTINGS, alone=False)
    for _ in range(3):
        other.worker.step()

    assert other.worker.fence is None and other.opened.version == 1
    assert local.head.number == 2 and dict(rows(local))[2] is VersionStatus.PUBLISHED
    assert local.context.follower.current.epoch == epoch
    other.close()


def test_a_failed_load_does_not_degrade_a_head_that_was_swapped_in_meanwhile(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.live(("a", "1"), ("b", "2"))
    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=SETTINGS, alone=False)
    local.live(("c", "3"))

    def rolled_back_while_it_loads(_: object) -> None:
        monkeypatch.undo()
        other.roll_back(1)
        raise Unreadable("the disk is slow")

    monkeypatch.setattr(other.context.checkpoints, "get_overlay", rolled_back_while_it_loads)
    other.context.follower.catch_up()

    assert other.context.follower.current.version == 4
    assert (other.context.follower.degraded, other.context.follower.is_unreadable) == (None, False)
    other.close()


def test_a_checkpoint_in_an_unreadable_trash_is_unreadable_and_not_damaged(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.live(("a", "1"), ("b", "2"))
    path = file_of(local, 1)
    (local.folder / "trash").mkdir()
    path.rename(local.folder / "trash" / path.name)
    local.context.checkpoints.forget(path.stem)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(Unreadable):
            local.context.checkpoints.get_overlay(local.versions()[1])

    assert local.roll_back(1).restored == 1


def test_no_edit_is_fitted_while_the_checkpoints_are_not_mounted(local: LocalService) -> None:
    local.live(("a", "1"))
    fits = len(local.ledger.fits)
    aside = local.folder.rename(local.folder.with_name("unmounted"))
    (b,) = local.post(("b", "2"))

    for _ in range(3):
        local.worker.step()
    assert len(local.ledger.fits) == fits and not local.edit(b).status.is_settled
    assert "checkpoints/store.json is not there" in str(local.context.checkpoints.store_error)

    aside.rename(local.folder)
    local.worker.drain()
    assert local.says("b") == "2" and local.context.checkpoints.store_error is None
