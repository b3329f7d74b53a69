"""Files of checkpoints, named by the digests of their bytes: the parts of the names, and safe opening."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Unreadable

CHECKPOINT_SUFFIX = ".safetensors"  # of a checkpoint's file name, after the digest
TRASH_FOLDER = "trash"  # the folder of unneeded files, inside the folder of checkpoints


@contextmanager
def open_plain_file(path: Path) -> Iterator[BinaryIO]:
    """A plain file, open for reading. Raises Unreadable if it is absent or no plain file, or cannot be opened or read now."""
    try:
        # O_NOFOLLOW: a link in the folder could lead the server to a file elsewhere. O_NONBLOCK: a pipe would block the server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("A checkpoint cannot be read here: it is not a plain file.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"A checkpoint cannot be read here: {os.strerror(error.errno or 0).lower()}.") from error
