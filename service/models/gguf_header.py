"""The header of a GGUF file: what it says of its model, and where its tensors are. Read within bounds, because a file may be cut
off, or made to exhaust its reader.

Numbers are little-endian. An array is not kept, only its length: the vocabulary is read by whoever converts the file.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Refused

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
ALIGNMENT = 32  # bytes, where the file names none
# Elements and bytes of one block, by the number of the type. Types that no loader reads any more are left out.
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84)},
    **{11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74)},
    **{18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2)},
    **{26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17)},
}
MAX_KEYS = 10_000  # of metadata; files in use have fewer than a hundred
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 512
MAX_TEXT_BYTES = 4_000_000  # the longest chat templates have 50,000
MAX_ITEMS = 4_000_000  # of all arrays together: the largest vocabularies in use have 300,000 tokens and twice as many merges
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16

Value = int | float | bool | str


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    architecture: str
    values: Mapping[str, Value]  # the metadata that are no arrays
    lengths: Mapping[str, int]  # of the arrays
    tensors: tuple[str, ...]  # names
    elements: int  # of all tensors together

    def text(self, *keys: str) -> str | None:
        """The first of these metadata that is a text, in one line of at most 200 characters; None if none is."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str) and (shown := "".join(c if c.isprintable() else " " for c in value).strip()):
                return shown[:200]
        return None

    def number(self, key: str) -> int | None:
        """An integer of the architecture's own metadata, such as `block_count`; None if the file has none."""
        value = self.values.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file. Raises Refused if the file is none, is cut off, or has a header that cannot be true."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _Header(file, size).read()


class _Header:
    """One pass over a header. Every length is compared with what is left of the file before anything is read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._items = 0

    def read(self) -> GgufHeader:
        if self._size < len(MAGIC) or self._take(len(MAGIC)) != MAGIC:
            raise Refused("The model's file is not a GGUF file.", field="model")
        version, tensor_count, key_count = self._unpack("<IQQ")
        if version not in VERSIONS:
            raise Refused("The model's GGUF file has a version other than 2 and 3, or is big-endian: convert it.", field="model")
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise _absurd("counts")
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(key_count):
            key = self._text(MAX_NAME_BYTES)
            if key in values or key in lengths:
                raise _absurd("names")
            self._read_value(key, values, lengths)
        shapes = list(self._read_tensors(tensor_count))
        self._check_data(shapes, values.get("general.alignment", ALIGNMENT))
        architecture = values.get("general.architecture")
        if not isinstance(architecture, str):
            raise Refused("The model's GGUF file does not name its architecture.", field="model")
        return GgufHeader(
            architecture=architecture,
            values=values,
            lengths=lengths,
            tensors=tuple(name for name, *_ in shapes),
            elements=sum(elements for _, elements, *_ in shapes),
        )

    def _read_value(self, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
        (kind,) = self._unpack("<I")
        if kind in SCALARS:
            (values[key],) = self._unpack(SCALARS[kind])
        elif kind == STRING:
            values[key] = self._text(MAX_TEXT_BYTES)
        elif kind == ARRAY:
            lengths[key] = self._skip_array()
        else:
            raise _absurd("metadata")

    def _skip_array(self) -> int:
        kind, length = self._unpack("<IQ")
        self._items += length
        if self._items > MAX_ITEMS:
            raise _absurd("lists")
        if kind in SCALARS:
            self._skip(length * struct.calcsize(SCALARS[kind]))
        elif kind == STRING:
            for _ in range(length):
                self._skip(self._unpack("<Q")[0])
        else:
            raise _absurd("lists")
        return int(length)

    def _read_tensors(self, count: int) -> Iterator[tuple[str, int, int, int]]:
        """Name, elements, offset and bytes of every tensor."""
        names = set()
        for _ in range(count):
            name = self._text(MAX_NAME_BYTES)
            (dimensions,) = self._unpack("<I")
            if name in names or dimensions > MAX_DIMENSIONS:
                raise _absurd("tensors")
            names.add(name)
            shape = self._unpack(f"<{dimensions}Q")
            kind, offset = self._unpack("<IQ")
            if kind not in BLOCKS:
                raise Refused("The model's GGUF file holds a tensor of a type that is not known here.", field="model")
            block_elements, block_bytes = BLOCKS[kind]
            elements = prod(shape)
            if not elements or (shape or (1,))[0] % block_elements:
                raise _absurd("tensors")
            yield name, elements, offset, elements // block_elements * block_bytes

    def _check_data(self, tensors: list[tuple[str, int, int, int]], alignment: Value) -> None:
        """Refuse tensors beyond the end of the file, and tensors that share bytes: then a small file could fill the memory."""
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise _absurd("alignment")
        end = (self._file.tell() + alignment - 1) // alignment * alignment
        start = end
        for _, _, offset, length in sorted(tensors, key=lambda tensor: tensor[2]):
            if start + offset < end:
                raise _absurd("tensors")
            end = start + offset + length
        if end > self._size:
            raise _cut_off()

    def _take(self, length: int) -> bytes:
        if length > self._size - self._file.tell():
            raise _cut_off()
        data = self._file.read(length)
        if len(data) != length:
            raise _cut_off()
        return data

    def _skip(self, length: int) -> None:
        if length > self._size - self._file.tell():
            raise _cut_off()
        self._file.seek(length, 1)

    def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _text(self, limit: int) -> str:
        (length,) = self._unpack("<Q")
        if length > limit:
            raise _absurd("names and texts")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise _absurd("names and texts") from error


def _cut_off() -> Refused:
    return Refused("The model's GGUF file is shorter than its header says: copy it again.", field="model")


def _absurd(what: str) -> Refused:
    return Refused(f"The header of the model's GGUF file cannot be true: look at its {what}.", field="model")
