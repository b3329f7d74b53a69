"""The files of checkpoints, each named by the digest of its bytes: what they are called, and opening one that is a plain file
and not only looks like one.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Unreadable

CHECKPOINT_SUFFIX = ".safetensors"  # of a checkpoint, behind its digest
TRASH_FOLDER = "trash"  # the folder, in that of the checkpoints, of what is not needed there any more


@contextmanager
def open_plain_file(path: Path) -> Iterator[BinaryIO]:
    """A plain file, open for reading. Raises Unreadable if there is none, or if it cannot be opened or read now."""
    try:
        # O_NOFOLLOW: a link planted in the folder would have the server read a file elsewhere. O_NONBLOCK: a pipe would hang it.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise Unreadable("A checkpoint cannot be read here: it is not a plain file.")
            with os.fdopen(number, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(number)
    except OSError as error:
        raise Unreadable(f"A checkpoint cannot be read here: {os.strerror(error.errno or 0).lower()}.") from error
