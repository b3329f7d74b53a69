"""Atomic writes: under its name a file is whole or absent, also after a power cut, a full disk or a killed process."""

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes, *, temporary: str) -> None:
    """Write a file named `temporary` beside `path`, synchronise it, and rename it to `path`. An OSError leaves neither file."""
    temporary_path = path.with_name(temporary)
    try:
        with temporary_path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary_path.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary_path.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Put the data of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
