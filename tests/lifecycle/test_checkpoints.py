"""Checkpoints between memory and their place: fetched back from the trash, and never written where they would be lost."""

from pathlib import Path

import pytest

from service.domain.errors import Unreadable
from tests.lifecycle.local_service import LocalService, new_local_service


def test_a_checkpoint_that_is_needed_again_is_restored_from_the_trash(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    digest = str(local.head.digest)
    (local.folder / "trash").mkdir()
    (local.folder / f"{digest}.safetensors").rename(local.folder / "trash" / f"{digest}.safetensors")

    again = local.again()

    assert again.opened.degraded is None and again.says("b") == "2"
    assert (local.folder / f"{digest}.safetensors").is_file()
    again.close()


def test_bytes_that_cannot_be_written_beside_an_unmounted_disk_are_not_written(local: LocalService) -> None:
    local.live(("a", "1"))
    aside = local.folder.with_name("elsewhere")
    local.folder.rename(aside)
    overlay = local.context.follower.current.overlay

    with pytest.raises(Unreadable):
        local.context.checkpoints.save(overlay)

    assert not local.folder.exists()
    aside.rename(local.folder)


def test_an_edit_becomes_live_despite_a_folder_with_its_checkpoints_name(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = new_local_service(tmp_path / "one"), new_local_service(tmp_path / "two")
    first.live(("a", "1"))
    (second.folder / f"{first.head.digest}.safetensors" / "inside").mkdir(parents=True)

    (edit,) = second.live(("a", "1"))

    assert second.edit(edit).status.is_live and second.head.digest == first.head.digest
    assert second.again().says("a") == "1"
    assert len(list((second.folder / "trash").iterdir())) == 1
    first.close()
