"""The identity of a file's content, without reading the file."""

import os

FileIdentity = tuple[int, int, int, int, int]  # device, inode, bytes, and the last change of content and of status in nanoseconds


def identity_of(status: os.stat_result) -> FileIdentity:
    """The identity of a file by its status. Different contents have different identities."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
