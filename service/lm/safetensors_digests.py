"""SHA-256 of each tensor of safetensors files, whichever file it is in. Reads the files once and in order, and maps none."""

import hashlib
import json
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from service.domain.errors import Refused

CHUNK_BYTES = 1 << 22
MAX_HEADER_BYTES = 100_000_000  # safetensors reads no longer one
METADATA = "__metadata__"

TensorDigest = tuple[str, str, list[int], str]  # name, dtype, shape, SHA-256 of the bytes


def digests_of_tensors(paths: Sequence[Path], between_chunks: Callable[[], None]) -> list[TensorDigest]:
    """The tensors of the files with their digests, by name. Raises Refused for a file that is damaged, OSError for one that
    cannot be read.
    """
    buffer = memoryview(bytearray(CHUNK_BYTES))
    digests = [digest for path in paths for digest in _digests_of_file(path, buffer, between_chunks)]
    return sorted(digests, key=lambda digest: (digest[0], digest[-1]))


def _digests_of_file(path: Path, buffer: memoryview, between_chunks: Callable[[], None]) -> list[TensorDigest]:
    with FileIO(path) as file:
        try:
            start, tensors = _read_header(file)
            return [_digest(file, start, name, entry, buffer, between_chunks) for name, entry in tensors]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise Refused(f"The model's file {path.name} is damaged.", field="model") from error


def _read_header(file: FileIO) -> tuple[int, list[tuple[str, Any]]]:
    """Where the tensors' bytes begin, and the tensors by their place."""
    size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError("a header longer than any")
    header = json.loads(file.read(size))
    tensors = [(name, entry) for name, entry in header.items() if name != METADATA]
    return 8 + size, sorted(tensors, key=lambda tensor: tuple(tensor[1]["data_offsets"]))


def _digest(file: FileIO, start: int, name: str, entry: Any, buffer: memoryview, between: Callable[[], None]) -> TensorDigest:
    begin, end = entry["data_offsets"]
    file.seek(start + begin)
    digest, left = hashlib.sha256(), end - begin
    while left > 0:
        count = file.readinto(buffer[: min(left, len(buffer))])
        if not count:
            raise ValueError("the file ends within a tensor")
        digest.update(buffer[:count])
        left -= count
        between()
    return name, str(entry["dtype"]), list(entry["shape"]), digest.hexdigest()
