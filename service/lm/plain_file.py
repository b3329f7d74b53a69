"""Opening a file of bytes that are stored by their digest: a plain one, and nothing that only looks like one."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Unreadable


@contextmanager
def opened_plain(path: Path) -> Iterator[BinaryIO]:
    """A plain file, open for reading. Raises Unreadable if there is none, or if it cannot be opened or read now."""
    try:
        # O_NOFOLLOW: a link planted in the folder would have the server read a file elsewhere. O_NONBLOCK: a pipe would hang it.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise Unreadable("A checkpoint cannot be read here: it is not a plain file.")
            yield file
    except OSError as error:
        raise Unreadable(f"A checkpoint cannot be read here: {os.strerror(error.errno or 0).lower()}.") from error
