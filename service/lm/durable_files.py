"""Writing a file so that it is whole under its name or not there: after a power cut, on a full disk, in a killed process."""

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes, *, temporary: str) -> None:
    """Write to a file called `temporary` beside `path`, synchronise it, and give it its name. Raises OSError and leaves neither
    behind.
    """
    beside = path.with_name(temporary)
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
