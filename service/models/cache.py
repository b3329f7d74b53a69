"""The folder of the models that are made here: one folder a model, whole or absent.

A model is made in a temporary folder of the same disk under a lock, synchronised and renamed. So a temporary folder that is there
when the lock is free was left by a process that was killed, and is removed.
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from service.domain.errors import ServiceError, Unavailable
from service.lm.durable_files import synchronise

CARD = "errata-model.json"
LOCK = ".lock"
PARTIAL = ".partial"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
MAX_CARD_BYTES = 100_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Say = Callable[[str], None]


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model that was made here. `digest`: SHA-256 of the file that it was made of."""

    source: str
    licence: str | None
    architecture: str
    digest: str


@dataclass(frozen=True)
class CachedModel:
    """A model in the folder."""

    name: str
    folder: Path
    card: ModelCard

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def find(folder: Path, name: str) -> CachedModel | None:
    """The model of this name; None if it is not there."""
    card = _read_card(folder / name) if NAME.fullmatch(name) else None
    return None if card is None else CachedModel(name, folder / name, card)


def list_models(folder: Path) -> list[CachedModel]:
    """All models, by name."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [model for name in names if (model := find(folder, name)) is not None]


def make(folder: Path, name: str, write: Callable[[Path], ModelCard], *, room: int, say: Say) -> CachedModel:
    """The model of this name, made by `write` unless it is there: `write` gets an empty folder and leaves the model's files in
    its subfolder `model`. `room`: bytes that it needs on the disk. One process makes models at a time; others wait and say so.

    Raises Unavailable if the disk has no room or refuses the write, and whatever `write` raises; then nothing is left.
    """
    if (present := find(folder, name)) is not None:
        return present
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, say):
            if (present := find(folder, name)) is not None:
                return present
            _remove_partial(folder)
            _check_room(folder, room)
            _make(folder, name, write)
    except OSError as error:
        raise disk_error(error.errno) from error
    made = find(folder, name)
    if made is None:
        raise Unavailable("The model that was made is not there any more: another program removed it from models_dir.")
    return made


def disk_error(number: int | None) -> ServiceError:
    """The error of a write that the disk refused."""
    if number in NO_ROOM:
        return Unavailable("There is no room left on the disk of models_dir: make some, or set models_dir to a folder elsewhere.")
    return Unavailable(f"The folder models_dir cannot be written: {os.strerror(number or 0).lower()}; set another one.")


def _make(folder: Path, name: str, write: Callable[[Path], ModelCard]) -> None:
    partial = folder / f"{PARTIAL}-{name}"
    partial.mkdir()
    try:
        (partial / "model").mkdir()
        card = write(partial)
        (partial / "model" / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n")
        for path in (partial / "model").iterdir():
            synchronise(path)
        synchronise(partial / "model")
        (partial / "model").rename(folder / name)
        synchronise(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    """Hold the lock of the folder. The kernel releases it when the process ends, however it ends."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that makes a model")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_partial(folder: Path) -> None:
    for path in folder.glob(f"{PARTIAL}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _check_room(folder: Path, room: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < room:
        raise Unavailable(
            f"The model needs {room / 1e9:.1f} GB on the disk of models_dir, which has {free / 1e9:.1f} GB: make room, or set"
            " models_dir to a folder elsewhere."
        )


def _read_card(folder: Path) -> ModelCard | None:
    try:
        with (folder / CARD).open("rb") as file:
            return ModelCard(**json.loads(file.read(MAX_CARD_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
