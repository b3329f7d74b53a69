"""A GGUF file as a model that can be served: dequantised once, and kept by the digest of the file."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.domain.errors import Refused, Unavailable
from service.lm.file_identity import FileIdentity, identity_of
from service.models import cache
from service.models.cache import CachedModel, ModelCard, Say
from service.models.gguf_architectures import check_architecture
from service.models.gguf_header import GgufHeader, read_header

EXTRA = ("gguf", "accelerate")
PROGRAM = "service.models.gguf_conversion"
CHUNK_BYTES = 1 << 22
FLOAT_BYTES = 4
COPIES = 3  # of the weights at one time: the loader's, the model's, and a file's that is written
PROGRAM_BYTES = 4_000_000_000  # of torch, transformers and the reader of the vocabulary
START_S, ELEMENTS_PER_S = 300.0, 2_000_000  # longest start, and slowest conversion
SAY_EVERY_S = 5.0


def convert_file(folder: Path, file: Path, *, say: Say) -> CachedModel:
    """The model of a GGUF file, in the folder of models: made now, unless a file of the same bytes was converted before.

    Raises Refused for a file that is not whole, cannot be edited or cannot be converted, Unavailable without disk or memory.
    """
    before = _identity(file)
    header = read_header(file)
    check_architecture(header)
    say("reading the GGUF file")
    digest = sha256_of(file)
    name = f"gguf-{digest[:32]}"
    if (present := cache.find(folder, name)) is not None:
        return present
    check_extra()

    def write(partial: Path) -> ModelCard:
        convert_into(partial, file, header, say=say)
        if _identity(file) != before:
            raise Unavailable("The model's GGUF file changed while it was read; wait until it is written, then start again.")
        return describe(header, digest)

    return cache.make(folder, name, write, room=room_of(header), say=say)


def describe(header: GgufHeader, digest: str, *, source: str | None = None, licence: str | None = None) -> ModelCard:
    """The card of a model: what is given here, else what the file's metadata say."""
    named = header.text("general.source.url", "general.repo_url", "general.url", "general.name", "general.basename")
    organisation = header.text("general.organization")
    own = ", ".join(part for part in (named, organisation) if part) or "a GGUF file that names no source"
    return ModelCard(
        source=source or own, licence=licence or header.text("general.license"), architecture=header.architecture, digest=digest
    )


def room_of(header: GgufHeader) -> int:
    """Bytes that the converted model needs on the disk, with its tokenizer."""
    return FLOAT_BYTES * header.elements + 100_000_000


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_extra() -> None:
    """Raise Refused if the packages that read GGUF files are not installed."""
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        raise Refused(
            "A GGUF file needs packages that are not installed: run pip install 'errata-server[gguf]', then start again.",
            field="model",
        )


def convert_into(partial: Path, file: Path, header: GgufHeader, *, say: Say) -> None:
    """Convert a file into `partial/model`, in a process with bounded memory and time."""
    memory = COPIES * FLOAT_BYTES * header.elements + PROGRAM_BYTES
    if FLOAT_BYTES * header.elements > _machine_memory():
        raise Unavailable(
            f"The model needs {FLOAT_BYTES * header.elements / 1e9:.1f} GB of memory, and this machine has"
            f" {_machine_memory() / 1e9:.1f} GB."
        )
    alone = partial / "source"
    alone.mkdir()
    (alone / "model.gguf").symlink_to(file.resolve())
    command = [sys.executable, "-m", PROGRAM, str(alone / "model.gguf"), str(partial / "model"), str(memory)]
    with _child(command, START_S + header.elements / ELEMENTS_PER_S) as process:
        outcome = _follow(process, say)
    if "errno" in outcome:
        raise cache.disk_error(outcome["errno"])
    if "refused" in outcome:
        raise Refused(outcome["refused"], field="model")
    if "done" not in outcome:
        raise Unavailable("The conversion of the model's GGUF file was ended from outside, took too long, or found no memory.")


@contextmanager
def _child(command: list[str], limit_s: float) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is killed at the end of the block or after `limit_s` seconds, whichever is first."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(limit_s, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _follow(process: "subprocess.Popen[bytes]", say: Say) -> dict[str, Any]:
    """The last line of a conversion; its steps are said, with the seconds that they take."""
    step, began, ended = "loading the converter", time.monotonic(), threading.Event()

    def remind() -> None:
        while not ended.wait(SAY_EVERY_S):
            say(f"{step}, {time.monotonic() - began:.0f} s")

    reminder = threading.Thread(target=remind, daemon=True)
    say(step)
    reminder.start()
    outcome: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            outcome = _parse(line)
            if "step" in outcome:
                step = str(outcome["step"])
                say(step)
    finally:
        ended.set()
        reminder.join()
    return outcome


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _identity(file: Path) -> FileIdentity:
    try:
        status = file.stat()
        if not file.is_file():
            raise Refused("The model is neither a folder nor a file.", field="model")
        with file.open("rb"):
            return identity_of(status)
    except OSError as error:
        raise Refused(f"The model's file cannot be read: {os.strerror(error.errno or 0).lower()}.", field="model") from error


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
