"""The checks of a base while it serves: what is on disk is said, what is in memory is refused."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from service.domain.errors import Unavailable
from service.lm.base import load_base
from service.lm.fingerprint import fingerprint_of
from service.lm.overlay import EMPTY
from service.serving import weight_seal
from service.serving.request import Generation
from service.serving.scheduler import Scheduler
from service.serving.weight_seal import PIECE_BYTES, WeightSeal
from tests.builders import make_base, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def sealed(folder: Path) -> WeightSeal:
    return WeightSeal(load_base(str(folder), device="cpu"), pause_s=0)


def test_an_unchanged_base_is_sound_and_has_no_note(folder: Path) -> None:
    seal = sealed(folder)

    seal.check_files()
    seal.check_memory()

    assert (seal.is_sound, seal.failure, seal.note) == (True, None, None)


def test_a_file_replaced_on_disk_is_reported_once_and_serving_continues(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    seal = sealed(folder)
    save_model(folder, seed=1)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            seal.check_files()

    assert seal.is_sound and seal.note is not None
    assert ["model.safetensors" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_or_truncated_file_is_reported(name: str, folder: Path) -> None:
    seal = sealed(folder)

    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    seal.check_files()
    assert seal.note is not None

    (folder / name).unlink()
    seal.check_files()
    assert seal.note is not None

    (folder / name).write_bytes(data)  # from a backup
    seal.check_files()
    assert seal.note is None and seal.is_sound


def test_a_folder_that_returns_is_accepted_again(folder: Path) -> None:
    seal = sealed(folder)
    shutil.move(folder, folder.with_name("elsewhere"))
    seal.check_files()
    assert seal.note is not None

    shutil.move(folder.with_name("elsewhere"), folder)
    seal.check_files()

    assert seal.note is None


def test_a_copy_of_the_same_content_is_not_reported(folder: Path) -> None:
    seal = sealed(folder)
    shutil.copy(folder / "model.safetensors", folder / "copy")
    (folder / "copy").replace(folder / "model.safetensors")

    seal.check_files()

    assert seal.note is None


def test_a_change_of_what_is_not_used_is_not_reported_and_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal, reads = sealed(folder), []
    (folder / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.2}')
    (folder / "chat_template.jinja").write_text("{# ours #}" + (folder / "chat_template.jinja").read_text())
    monkeypatch.setattr(weight_seal, "fingerprint_of", lambda *given: reads.append(given) or fingerprint_of(*given))

    for _ in range(3):
        seal.check_files()

    assert seal.note is None and len(reads) == 1


def test_a_change_in_memory_ends_serving() -> None:
    base = make_base()
    serving = Scheduler(base)
    seal = WeightSeal(base, refuse=serving.refuse, pause_s=0)
    serving.start()
    serving.adopt(0, EMPTY)
    serving.set_head(0, 0)
    asked = Generation(prompt_ids=[0, 7, 8], max_new_tokens=2)
    assert serving.submit(asked).result(30).completion_tokens > 0

    with torch.no_grad():
        next(iter(base.model.parameters())).view(-1)[-1] += 1
    seal.check_memory()

    assert not seal.is_sound and seal.failure is not None
    with pytest.raises(Unavailable, match="restart"):
        serving.submit(asked)
    with pytest.raises(Unavailable, match="restart"):
        serving.yield_to_answers()  # a fit ends at its next step
    serving.close()


def test_memory_is_read_in_pieces_and_gives_way_between_them() -> None:
    base = make_base()
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in base.model.state_dict().values()}
    gave: list[None] = []
    seal = WeightSeal(base, yield_to_answers=lambda: gave.append(None), pause_s=0)

    seal.check_memory()

    assert len(gave) == sum(-(-size // PIECE_BYTES) for size in tensors.values())
