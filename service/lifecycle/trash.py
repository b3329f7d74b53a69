"""The trash of the checkpoints' folder: what no version needs any more waits there, so that a mistake can be undone. What is
purged does not: it is deleted wherever it lies.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path

from service.lm.checkpoint_files import CHECKPOINT_SUFFIX, TRASH_FOLDER


def discard(folder: Path, digest: str) -> bool:
    """Move a checkpoint to the trash, from this moment on; whether there was one."""
    path = folder / f"{digest}{CHECKPOINT_SUFFIX}"
    if not path.is_file():
        return False
    (folder / TRASH_FOLDER).mkdir(exist_ok=True)
    os.utime(path)  # its term begins now
    path.rename(folder / TRASH_FOLDER / path.name)
    return True


def restore(folder: Path, digest: str) -> bool:
    """Fetch a checkpoint back from the trash, if it is there and nothing lies in its place; whether it was. What the disk does
    not allow now was not: whoever wants the checkpoint finds out what is wrong by reading it.
    """
    waiting, place = folder / TRASH_FOLDER / f"{digest}{CHECKPOINT_SUFFIX}", folder / f"{digest}{CHECKPOINT_SUFFIX}"
    try:
        if place.exists() or not waiting.is_file():
            return False
        waiting.rename(place)
    except OSError:
        return False
    return True


def remove(folder: Path, digest: str) -> bool:
    """Delete a checkpoint wherever it lies, for good; whether there was one."""
    found = [
        path
        for path in (folder / f"{digest}{CHECKPOINT_SUFFIX}", folder / TRASH_FOLDER / f"{digest}{CHECKPOINT_SUFFIX}")
        if path.is_file()
    ]
    for path in found:
        path.unlink()
    return bool(found)


def empty(folder: Path, digests: Collection[str], *, term_s: float) -> list[str]:
    """Delete those of these checkpoints that have been in the trash for as long as the term; their digests. What else lies there
    was never named by a version of this store, and is left to whoever put it there.
    """
    trash = folder / TRASH_FOLDER
    gone = []
    for path in sorted(trash.glob(f"*{CHECKPOINT_SUFFIX}")) if trash.is_dir() else ():
        if path.stem in digests and time.time() - path.stat().st_mtime > term_s:
            path.unlink()
            gone.append(path.stem)
    return gone
