"""Checkpoints: a read gives the written bytes or an error."""

import hashlib
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_safetensors

from service.domain.errors import Corrupt, Unavailable, Unreadable
from service.lm.checkpoint import load, save, to_bytes
from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import EMPTY, Overlay
from tests.builders import make_adapter

NAME = "model.layers.2.mlp.down_proj.weight"


def make_overlay(*, size: int = 6, seed: int = 0) -> Overlay:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        NAME: torch.randn(size, size, generator=generator),
        "model.layers.2.mlp.bias": torch.randn(size, generator=generator).to(torch.bfloat16),
    }
    return Overlay(tensors, make_adapter(seed=seed))


def planted(folder: Path, data: bytes) -> str:
    """Any bytes under their right name."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"{digest}.safetensors").write_bytes(data)
    return digest


def test_an_overlay_comes_back_bit_for_bit(tmp_path: Path) -> None:
    overlay = make_overlay()
    assert overlay.adapter is not None

    loaded = load(tmp_path, save(overlay, tmp_path))

    assert loaded.tensors_digest == overlay.tensors_digest
    assert loaded.adapter is not None and loaded.adapter.last == 3
    for block, intervention in overlay.adapter.interventions.items():
        for name, tensor in intervention.tensors().items():
            assert torch.equal(loaded.adapter.interventions[block].tensors()[name], tensor)
        assert loaded.adapter.balance[block].count == overlay.adapter.balance[block].count
        assert torch.equal(loaded.adapter.balance[block].total, overlay.adapter.balance[block].total)


def test_overlays_without_adapter_gate_balance_or_anything_come_back_as_such(tmp_path: Path) -> None:
    full = make_adapter((1,)).interventions[1]
    bare = Adapter({1: Intervention(full.rotation, full.source, full.bias)}, {}, last=5)

    loaded = load(tmp_path, save(Overlay({}, bare), tmp_path)).adapter
    assert loaded is not None and loaded.last == 5 and loaded.balance == {}
    assert loaded.interventions[1].gate is None and loaded.interventions[1].gain is None
    assert load(tmp_path, save(EMPTY, tmp_path)).adapter is None
    assert load(tmp_path, save(Overlay({}, Adapter({})), tmp_path)).adapter is not None


def test_the_same_overlay_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    reordered = make_overlay()
    reordered = Overlay(dict(reversed(list(reordered.tensors.items()))), reordered.adapter)
    digests = [save(make_overlay(), tmp_path, meta={"a": 1, "b": [2]}), save(reordered, tmp_path, meta={"b": [2], "a": 1})]

    assert digests[0] == digests[1]
    assert save(make_overlay(seed=1), tmp_path, meta={"a": 1, "b": [2]}) != digests[0]
    assert save(make_overlay(), tmp_path, meta={"a": 2, "b": [2]}) != digests[0]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_is_named_by_the_digest_of_its_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    digest = save(make_overlay(), tmp_path / "new" / "folder")
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path.name == f"{digest}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_one_changed_byte_anywhere_is_corrupt(tmp_path: Path, place: int) -> None:
    digest = save(make_overlay(), tmp_path)
    path = tmp_path / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        load(tmp_path, digest)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_cut_file_is_corrupt(tmp_path: Path, length: int) -> None:
    digest = save(make_overlay(), tmp_path)
    path = tmp_path / f"{digest}.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Corrupt):
        load(tmp_path, digest)


def test_saving_again_mends_a_damaged_file(tmp_path: Path) -> None:
    digest = save(make_overlay(), tmp_path)
    (tmp_path / f"{digest}.safetensors").write_bytes(b"damaged")
    assert save(make_overlay(), tmp_path) == digest
    assert load(tmp_path, digest).adapter is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_neither_written_nor_loaded(tmp_path: Path, value: float) -> None:
    overlay = make_overlay()
    overlay.tensors[NAME][1, 1] = value

    with pytest.raises(Corrupt, match="not finite"):
        save(overlay, tmp_path)
    assert list(tmp_path.iterdir()) == []

    sound = to_bytes(make_overlay())
    one = torch.tensor([float(make_overlay().tensors[NAME][1, 1])]).numpy().tobytes()
    broken = planted(tmp_path, sound.replace(one, torch.tensor([value]).numpy().tobytes()))
    with pytest.raises(Corrupt, match="not finite"):
        load(tmp_path, broken)


def test_only_plain_files_are_read_and_others_count_as_unreadable(tmp_path: Path) -> None:
    digest = save(make_overlay(), tmp_path / "elsewhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / f"{digest}.safetensors"

    path.symlink_to(tmp_path / "elsewhere" / path.name)
    with pytest.raises(Unreadable):
        load(folder, digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Unreadable):
        load(folder, digest)
    path.unlink()
    path.mkdir()
    with pytest.raises(Unreadable):
        load(folder, digest)


def test_failed_reads_leave_no_file_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / f"{'0' * 64}.safetensors").mkdir()

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for _ in range(20):
        with pytest.raises(Unreadable):
            load(tmp_path, "0" * 64)

    assert opened() == before


def test_a_folder_in_the_place_of_a_checkpoint_is_moved_aside(tmp_path: Path) -> None:
    digest = hashlib.sha256(to_bytes(make_overlay())).hexdigest()
    (tmp_path / f"{digest}.safetensors" / "inside").mkdir(parents=True)

    assert save(make_overlay(), tmp_path) == digest

    assert load(tmp_path, digest).adapter is not None
    (aside,) = (tmp_path / "trash").iterdir()
    assert aside.name.startswith(digest) and (aside / "inside").is_dir()


@pytest.mark.parametrize("name", ["", "../secret", "A" * 64, "0" * 63])
def test_a_name_that_is_not_a_digest_is_corrupt(tmp_path: Path, name: str) -> None:
    with pytest.raises(Corrupt):
        load(tmp_path, name)


def test_a_file_is_unreadable_if_it_is_missing_or_too_many_files_are_open(tmp_path: Path) -> None:
    digest = save(make_overlay(), tmp_path)

    def act() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        load(tmp_path, digest)

    with pytest.raises(Unreadable, match="no such file"):
        load(tmp_path, "0" * 64)
    assert in_child(act) == 17


def test_an_unknown_format_is_unreadable_and_not_corrupt(tmp_path: Path) -> None:
    matrix, vector = torch.zeros(2, 4), torch.zeros(2)
    good = {"adapter/1/rotation": matrix, "adapter/1/source": matrix, "adapter/1/bias": vector}
    data = described({"last": 3, "blocks": [1], "counts": {}}, good, form=3)

    with pytest.raises(Unreadable, match="release"):
        load(tmp_path, planted(tmp_path, data))


def described(adapter: object, tensors: dict[str, torch.Tensor], *, form: int = 1) -> bytes:
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    return to_safetensors(tensors, metadata={"errata": json.dumps({"format": form, "meta": {}, "adapter": adapter})})


def test_files_with_the_right_digest_and_invalid_contents_are_corrupt(tmp_path: Path) -> None:
    matrix, vector = torch.zeros(2, 4), torch.zeros(2)
    good = {"adapter/1/rotation": matrix, "adapter/1/source": matrix, "adapter/1/bias": vector}
    adapter = {"last": 3, "blocks": [1], "counts": {}}
    assert load(tmp_path, planted(tmp_path, described(adapter, good)))

    senseless = [
        b"",
        b"\xff" * 100,
        (2**40).to_bytes(8, "little") + b"{" * 50,
        to_safetensors({"a": vector}),
        to_safetensors({"a": vector}, metadata={"errata": "not json"}),
        described(adapter, {**good, "adapter/1/bias": torch.zeros(3)}),
        described(adapter, {**good, "adapter/1/gate": torch.zeros(5, 4)}),
        described(adapter, {**good, "stray": vector}),
        described({"last": 3, "blocks": [1, 2], "counts": {}}, good),
        described({"last": 3, "blocks": [1], "counts": {"1": 4}}, good),
        described({"blocks": [1]}, good),
        described(["wrong"], good),
        described(None, good),
    ]
    for data in senseless:
        with pytest.raises(Corrupt):
            load(tmp_path, planted(tmp_path, data))


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
        save(make_overlay(size=100), folder)

    return act


def test_a_full_disk_is_unavailable_and_leaves_no_file(tmp_path: Path) -> None:
    assert in_child(write_with_room_for(20_000, tmp_path, die=False)) == 17
    assert list(tmp_path.iterdir()) == []
    assert in_child(write_with_room_for(10_000_000, tmp_path, die=False)) == 0


def test_a_process_that_dies_in_the_middle_leaves_no_file_under_a_final_name(tmp_path: Path) -> None:
    assert in_child(write_with_room_for(20_000, tmp_path, die=True)) == -signal.SIGXFSZ

    assert list(tmp_path.glob("*.safetensors")) == []
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == 20_000 and left.suffix == ".tmp"
    assert load(tmp_path, save(make_overlay(size=100), tmp_path)).adapter is not None


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        save(make_overlay(), tmp_path / "file" / "folder")
