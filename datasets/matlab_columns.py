"""A field's values in many struct arrays of a block (see matlab_blocks.py), found and converted by NumPy together."""

from collections.abc import Sequence

import numpy as np

from datasets.matlab_blocks import CLASS_BITS, INT8, INT32, MATRIX, SHORT_BYTES, TAG, UINT32, Structs, require

NAME_BYTES = 256
"""The longest name."""
LARGEST = 2**62
"""Numbers from here on are no coordinates: their sums could overflow."""
CHAR_CLASS, NUMBER_CLASSES = 4, (6, 13)
CHARACTER_BYTES = {2: 1, 16: 1, 4: 2, 17: 2}
"""By kind of element: 8 bits, UTF-8, 16 bits, UTF-16."""
NUMBER_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}

_WORD = TAG.size
_LEAF = np.dtype(
    {
        "names": ["size", "flags_tag", "flags", "dims_tag", "rows", "columns", "name_tag", "kind", "short", "length"],
        "formats": ["<u4", "<u8", "<u4", "<u8", "<u4", "<u4", "<u8", "<u2", "<u2", "<u4"],
        "offsets": [4, 8, 16, 24, 32, 36, 40, 48, 50, 52],
        "itemsize": 56,
    }
)
"""A matrix of numbers or characters, two-dimensional and nameless, up to its data. `short` is the number of bytes of
data that stand in the tag, where `length` is otherwise."""
_LEAF_TAGS = {"flags_tag": UINT32 | 8 << 32, "dims_tag": INT32 | 8 << 32, "name_tag": INT8}
_EMPTY_LEAF = _LEAF.itemsize - _WORD
"""The `size` of one without data."""
_FIRST_BYTES = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF], dtype=np.uint32)
"""Masks that keep as many bytes."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without pattern (2^64 by the golden ratio), as hashes are multiplied by."""


class Places:
    """Where the values of struct arrays stand.

    Finding them takes as many steps as the largest array has values: a step reads one size in each array that goes on.

    Args:
        block: starts and is divided at multiples of 8 bytes, as the format is.
        arrays: in it.
        fields: that each must have.

    Raises:
        NotPlainError: sizes do not add up to the arrays', or fields are missing.
    """

    def __init__(self, block: bytes, arrays: Sequence[Structs], fields: Sequence[str]):
        require(all(set(fields) <= set(array.fields) for array in arrays))
        self._arrays = arrays
        self.counts, first, end = (np.array([array[k] for array in arrays], dtype=np.int64) for k in (2, 3, 4))
        self._widths = np.array([len(array.fields) for array in arrays])
        many = self.counts * self._widths
        self._starts = np.cumsum(many) - many
        halves = np.frombuffer(block, dtype="<u4", count=len(block) // 4)
        # Largest first: those that go on are always the first ones. Places are numbered in 4 bytes, at the sizes.
        order = np.argsort(-many, kind="stable")
        here, starts = first[order] // 4 + 1, self._starts[order]
        going_on = np.searchsorted(-many[order], -np.arange(many.max(initial=0)))
        found = np.empty(many.sum(), dtype=np.int64)
        for step, active in enumerate(going_on.tolist()):
            at = here[:active]
            found[starts[:active] + step] = at
            at += (halves.take(at, mode="clip") >> 2) + 2  # both in 4 bytes: the size, and a tag
        # As each step goes on by its size, equal ends mean that no place lies outside its array.
        require((here * 4 == end[order] + 4).all())
        require((halves[found - 1] == MATRIX).all() and not (halves[found] % _WORD).any())
        self._found = found * 4 - 4

    def of(self, field: str) -> np.ndarray:
        """int64: the byte at which each struct's value of `field` starts, array by array."""
        numbers = np.array([array.fields.index(field) for array in self._arrays])
        first = np.cumsum(self.counts) - self.counts
        within = np.arange(self.counts.sum()) - np.repeat(first, self.counts)
        return self._found[
            np.repeat(self._starts + numbers, self.counts) + within * np.repeat(self._widths, self.counts)
        ]


def read_names(block: bytes, places: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different names at `places`, in the order of their first mention, and each place's as a position in them.

    Raises:
        NotPlainError: not all are non-empty ASCII strings of at most NAME_BYTES.
    """
    if not len(places):
        return [], np.zeros(0, np.int32)
    leaves, starts, lengths = _leaves(block, places)
    kind = int(leaves["kind"][0])
    require((leaves["kind"] == kind).all() and kind in CHARACTER_BYTES)
    width = CHARACTER_BYTES[kind]
    require((leaves["flags"] & CLASS_BITS == CHAR_CLASS).all() and (leaves["rows"] == 1).all())
    require((lengths == leaves["columns"].astype(np.int64) * width).all())
    require(lengths.min() > 0 and lengths.max() <= NAME_BYTES)
    words = _data(block, starts, lengths)
    first, codes = _distinct(words, lengths)
    names = [words[k].tobytes()[: lengths[k]] for k in first]
    if width == 2:
        names = [name.decode("utf-16-le", "replace").encode() for name in names]
    require(all(name.isascii() and b"\0" not in name for name in names))
    return [name.decode() for name in names], codes


def read_fours(block: bytes, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `places` hold four numbers (int64 positions in it), and these (p x 4 int64, fractions cut off).

    Raises:
        NotPlainError: others are not empty, or a number is not finite.
    """
    sizes = np.frombuffer(block, dtype="<u4", count=len(block) // 4)[places // 4 + 1]
    held = np.flatnonzero(sizes)  # a matrix without even flags is empty
    leaves, starts, lengths = _leaves(block, places[held])
    classes = leaves["flags"] & CLASS_BITS
    require(((classes >= NUMBER_CLASSES[0]) & (classes <= NUMBER_CLASSES[1])).all())
    require(np.isin(leaves["kind"], list(NUMBER_TYPES)).all())
    rows, columns = leaves["rows"].astype(np.int64), leaves["columns"].astype(np.int64)
    full = (rows > 0) & (columns > 0)
    require((lengths[~full] == 0).all() and (rows + columns == 5)[full].all() and (rows * columns == 4)[full].all())
    held, starts, lengths, kinds = held[full], starts[full], lengths[full], leaves["kind"][full]
    fours = np.empty((len(held), 4), np.int64)
    for kind in np.unique(kinds).tolist():
        chosen = kinds == kind
        dtype = np.dtype(NUMBER_TYPES[kind])
        require((lengths[chosen] == 4 * dtype.itemsize).all())
        numbers = _data(block, starts[chosen], lengths[chosen])[:, : dtype.itemsize].copy().view(dtype)
        require((abs(numbers.astype(np.float64)) < LARGEST).all())
        fours[chosen] = numbers
    return held, fours


def _leaves(block: bytes, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The _LEAF of each of `places`, the byte at which its data start, and their number (both int64)."""
    halves = np.frombuffer(block, dtype="<u4", count=len(block) // 4)
    require((halves[places // 4 + 1] >= _EMPTY_LEAF).all())
    leaves = np.ndarray(max(0, (len(block) - _LEAF.itemsize) // _WORD + 1), _LEAF, block, strides=(_WORD,))
    leaves = leaves[places // _WORD]
    require(all((leaves[field] == tag).all() for field, tag in _LEAF_TAGS.items()))
    in_tag = leaves["short"] > 0
    require((leaves["short"] <= SHORT_BYTES).all())
    lengths = np.where(in_tag, leaves["short"], leaves["length"]).astype(np.int64)
    padded = np.where(in_tag, 0, -(-lengths // _WORD) * _WORD)
    require((leaves["size"] == _EMPTY_LEAF + padded).all())
    return leaves, places + np.where(in_tag, _LEAF.itemsize - SHORT_BYTES, _LEAF.itemsize), lengths


def _data(block: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """uint32 n x k: the `lengths` bytes from each of `starts` (multiples of 4), then zeros; k is even."""
    halves = np.frombuffer(block, dtype="<u4", count=len(block) // 4)
    data = np.zeros((len(starts), -(-int(lengths.max(initial=0)) // _WORD) * 2), np.uint32)
    for k in range(data.shape[1]):
        data[:, k] = halves.take(starts // 4 + k, mode="clip") & _FIRST_BYTES[np.clip(lengths - 4 * k, 0, 4)]
    return data


def _distinct(words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (int64) at which different `words` stand for the first time, in order, and for each row (int32) which."""
    hashes = lengths.astype(np.uint64)
    for column in words.view("<u8").T:
        hashes = (hashes ^ column) * _MIX
        hashes ^= hashes >> np.uint64(32)
    known = np.unique(hashes)
    codes = np.searchsorted(known, hashes)
    first = np.empty(len(known), np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    alike = first[codes]
    require((words == words[alike]).all() and (lengths == lengths[alike]).all())  # else two names have one hash
    order = np.argsort(first)
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return first[order], ranks[codes]
