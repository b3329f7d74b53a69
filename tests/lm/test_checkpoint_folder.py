"""Files of checkpoints and the mark beside them: whole or absent, whatever stands in their place."""

import hashlib
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from service.domain.errors import Corrupt, Unavailable, Unreadable
from service.lm.checkpoint import load, save, to_bytes
from service.lm.checkpoint_folder import MARK_FILE, CheckpointFolder
from service.lm.checkpoint_store import StoreMark
from tests.lm.test_checkpoint import make_overlay


def test_a_file_is_named_by_the_digest_of_its_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    digest = save(make_overlay(), CheckpointFolder(tmp_path / "new" / "folder"))
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path.name == f"{digest}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_only_plain_files_are_read_and_others_count_as_unreadable(tmp_path: Path) -> None:
    digest = save(make_overlay(), CheckpointFolder(tmp_path / "elsewhere"))
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / f"{digest}.safetensors"

    path.symlink_to(tmp_path / "elsewhere" / path.name)
    with pytest.raises(Unreadable):
        load(CheckpointFolder(folder), digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Unreadable):
        load(CheckpointFolder(folder), digest)
    path.unlink()
    path.mkdir()
    with pytest.raises(Unreadable):
        load(CheckpointFolder(folder), digest)


def test_failed_reads_leave_no_file_descriptor_open(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    (tmp_path / f"{'0' * 64}.safetensors").mkdir()

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for _ in range(20):
        with pytest.raises(Unreadable):
            load(checkpoints, "0" * 64)

    assert opened() == before


def test_a_folder_in_the_place_of_a_checkpoint_is_moved_aside(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    digest = hashlib.sha256(to_bytes(make_overlay())).hexdigest()
    (tmp_path / f"{digest}.safetensors" / "inside").mkdir(parents=True)

    assert save(make_overlay(), checkpoints) == digest

    assert load(checkpoints, digest).adapter is not None
    (aside,) = (tmp_path / "trash").iterdir()
    assert aside.name.startswith(digest) and (aside / "inside").is_dir()


@pytest.mark.parametrize("name", ["", "../secret", "A" * 64, "0" * 63])
def test_a_name_that_is_not_a_digest_is_corrupt(tmp_path: Path, name: str) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    with pytest.raises(Corrupt):
        load(checkpoints, name)


def test_a_file_is_unreadable_if_it_is_missing_or_too_many_files_are_open(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    digest = save(make_overlay(), checkpoints)

    def act() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        load(checkpoints, digest)

    with pytest.raises(Unreadable, match="no such file"):
        load(checkpoints, "0" * 64)
    assert in_child(act) == 17


def in_child(act: Callable[[], None]) -> int:
    """Runs `act` in a forked process and gives its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except Unavailable:
            os._exit(17)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_with_room_for(room: int, folder: Path, *, die: bool) -> Callable[[], None]:
    """Writes 40 kB where a file may have `room` bytes; then the write fails, or ends the process as kill -9 does."""

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if die else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        save(make_overlay(size=100), CheckpointFolder(folder))

    return act


def test_a_full_disk_is_unavailable_and_leaves_no_file(tmp_path: Path) -> None:
    assert in_child(write_with_room_for(20_000, tmp_path, die=False)) == 17
    assert list(tmp_path.iterdir()) == []
    assert in_child(write_with_room_for(10_000_000, tmp_path, die=False)) == 0


def test_a_process_that_dies_in_the_middle_leaves_no_file_under_a_final_name(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    assert in_child(write_with_room_for(20_000, tmp_path, die=True)) == -signal.SIGXFSZ

    assert list(tmp_path.glob("*.safetensors")) == []
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == 20_000 and left.suffix == ".tmp"
    assert load(checkpoints, save(make_overlay(size=100), checkpoints)).adapter is not None


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        save(make_overlay(), CheckpointFolder(tmp_path / "file" / "folder"))


@pytest.mark.parametrize("content", ["", "[]", '{"store": 3, "founded": true}', '{"store": "a/b", "founded": true}', "x" * 9000])
def test_a_damaged_mark_is_reported_and_not_treated_as_missing(content: str, tmp_path: Path) -> None:
    (tmp_path / MARK_FILE).write_text(content)

    with pytest.raises(Unreadable, match="damaged"):
        CheckpointFolder(tmp_path).read_mark()


def test_the_mark_is_plain_enough_to_be_read_by_a_person(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).write_mark(StoreMark("one", is_complete=True))

    assert json.loads((tmp_path / MARK_FILE).read_text()) == {"store": "one", "founded": True}
    assert [path.name for path in tmp_path.iterdir()] == [MARK_FILE]
