"""Struct arrays of .mat files as bytes in blocks, in which NumPy finds many values at once (see matlab_columns.py).

The format (MathWorks, "MAT-File Level 5"): an element is a tag (kind, number of bytes) and data padded to 8 bytes; data
of up to 4 bytes may stand in the tag itself, their number then being the kind's upper half. A matrix is an element of
elements: flags, dimensions, name, and then its data; a struct array has the length of field names, their text and,
struct by struct, a matrix for each field.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEADER_BYTES = 128
VERSION_5 = b"\x00\x01IM"
"""The end of a little-endian file's header."""
BLOCK_BYTES = 1 << 24
"""Read at a time; a processor's cache holds it, which makes all that follows twice as fast."""
INPUT_BYTES = 1 << 20
"""The same, of compressed data."""

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
STRUCT_CLASS = 2
CLASS_BITS = 0x0EFF
"""Of the flags: the class, and complex, global and logical, which are not plain."""
SHORT_BYTES = 4
"""As many data may stand in a tag."""

TAG = struct.Struct("<2I")
_ARRAY = struct.Struct("<8I")
"""A matrix from its flags to its two dimensions."""


class NotPlainError(Exception):
    """The file is damaged, or laid out in a way that is not read here."""


class Structs(NamedTuple):
    """A struct array: its name, fields, number of structs, and between which bytes of a block their values stand."""

    name: str
    fields: list[str]
    count: int
    first: int
    end: int


def require(condition) -> None:
    """Raise NotPlainError unless `condition` holds."""
    if not condition:
        raise NotPlainError


class Variable:
    """What follows the tag of a file's first variable, inflated if need be: never more than the `size` bytes it tells.

    Raises:
        NotPlainError, zlib.error, struct.error, OSError: the file is no little-endian one of version 5, or damaged.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._inflater = file, None
        header = file.read(HEADER_BYTES)
        require(header.endswith(VERSION_5) and 0 not in header[:4])  # a 0 there: version 4
        kind, size = TAG.unpack(file.read(TAG.size))
        if kind == COMPRESSED:
            self._stored, self._inflater = size, zlib.decompressobj()
            kind, size = TAG.unpack(b"".join(self._inflated(TAG.size)))
        require(kind == MATRIX)
        self.size = self._left = size

    def read(self, kept: bytes = b"") -> bytes:
        """`kept` and the next block; the last is shorter."""
        size = min(BLOCK_BYTES, self._left)
        block = b"".join([kept, *(self._inflated(size) if self._inflater else [self._file.read(size)])])
        self._left -= len(block) - len(kept)
        return block

    def complete(self) -> bool:
        """Whether all is read, nothing else follows in it, and its checksum is right."""
        return not self._left and (not self._inflater or (not any(self._inflated(1)) and self._inflater.eof))

    def _inflated(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces, fewer at the end."""
        while size and not self._inflater.eof:
            stored = self._inflater.unconsumed_tail
            if not stored:
                stored = self._file.read(min(INPUT_BYTES, self._stored))
                self._stored -= len(stored)
            piece = self._inflater.decompress(stored, size)
            if not stored and not piece:
                break
            size -= len(piece)
            yield piece


def matrix_end(block: bytes, at: int) -> int:
    """Where the matrix ends whose tag is at `at`; beyond the block if the tag is not all in it."""
    if at + TAG.size > len(block):
        return len(block) + 1
    kind, size = TAG.unpack_from(block, at)
    require(kind == MATRIX and size % TAG.size == 0)
    return at + TAG.size + size


def structs_at(block: bytes, at: int, end: int) -> Structs:
    """The struct array whose matrix has its flags at `at` and ends at `end`."""
    *flags_tag, flags, _, dims_kind, dims_size, rows, columns = _ARRAY.unpack_from(block, at)
    require(flags_tag == [UINT32, 8] and flags & CLASS_BITS == STRUCT_CLASS)
    require((dims_kind, dims_size) == (INT32, 8) and min(rows, columns) <= 1)
    name_kind, name, at = _element(block, at + _ARRAY.size)
    length_kind, length, at = _element(block, at)
    text_kind, text, at = _element(block, at)
    require((name_kind, length_kind, text_kind, len(length)) == (INT8, INT32, INT8, 4))
    width = int.from_bytes(length, "little")
    require(width > 0 and len(text) % width == 0)
    fields = [text[k : k + width].partition(b"\0")[0].decode("latin-1") for k in range(0, len(text), width)]
    # Each value takes a tag at least: so the block bounds what memory and time depend on.
    require(len(set(fields)) == len(fields) and at + rows * columns * len(fields) * TAG.size <= end)
    return Structs(name.decode("latin-1"), fields, rows * columns, at, end)


def _element(block: bytes, at: int) -> tuple[int, bytes, int]:
    """Kind and data of the element at `at`, and where the next one starts."""
    kind, size = TAG.unpack_from(block, at)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        start, after = at + SHORT_BYTES, at + TAG.size
        require(size <= SHORT_BYTES)
    else:
        start = at + TAG.size
        after = start + -(-size // TAG.size) * TAG.size
    require(after <= len(block))
    return kind, block[start : start + size], after
