"""The trash in the folder of checkpoints. A checkpoint that no version needs waits there, so that a mistake can be undone.
Purged checkpoints do not: they are deleted wherever they are.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path

from service.lm.checkpoint_files import CHECKPOINT_SUFFIX, TRASH_FOLDER


def discard(folder: Path, digest: str) -> bool:
    """Move a checkpoint to the trash; its term begins now. Return whether there was one."""
    path = folder / f"{digest}{CHECKPOINT_SUFFIX}"
    if not path.is_file():
        return False
    (folder / TRASH_FOLDER).mkdir(exist_ok=True)
    os.utime(path)  # the term in the trash begins now
    path.rename(folder / TRASH_FOLDER / path.name)
    return True


def restore(folder: Path, digest: str) -> bool:
    """Move a checkpoint back from the trash, if it is there and its place is free; return whether it was moved. If the disk
    refuses, it was not: the reason is found by reading the checkpoint.
    """
    trashed, place = folder / TRASH_FOLDER / f"{digest}{CHECKPOINT_SUFFIX}", folder / f"{digest}{CHECKPOINT_SUFFIX}"
    try:
        if place.exists() or not trashed.is_file():
            return False
        trashed.rename(place)
    except OSError:
        return False
    return True


def remove(folder: Path, digest: str) -> bool:
    """Delete a checkpoint for good, wherever it is; return whether there was one."""
    paths = [
        path
        for path in (folder / f"{digest}{CHECKPOINT_SUFFIX}", folder / TRASH_FOLDER / f"{digest}{CHECKPOINT_SUFFIX}")
        if path.is_file()
    ]
    for path in paths:
        path.unlink()
    return bool(paths)


def empty(folder: Path, digests: Collection[str], *, term_s: float) -> list[str]:
    """Delete those of the checkpoints that have been in the trash for the term; return their digests. Other files in the trash
    were never named by a version of this store, and stay.
    """
    trash = folder / TRASH_FOLDER
    deleted = []
    for path in sorted(trash.glob(f"*{CHECKPOINT_SUFFIX}")) if trash.is_dir() else ():
        if path.stem in digests and time.time() - path.stat().st_mtime > term_s:
            path.unlink()
            deleted.append(path.stem)
    return deleted
