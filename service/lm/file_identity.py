"""What tells one file from another under the same name, without reading it."""

import os

FileIdentity = tuple[int, int, int, int, int]  # device, inode, bytes, nanoseconds of the last change of content and of anything


def identity_of(found: os.stat_result) -> FileIdentity:
    """The identity of a file that was looked at: another content has another one."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
