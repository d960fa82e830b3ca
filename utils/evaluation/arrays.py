"""Arrays of single images joined into one array, so that NumPy works on all images at once."""

from collections.abc import Sequence

import numpy as np

from utils.errors import UserError

DETECTION_COLUMNS = 5
"""x1, y1, x2, y2 (pixels) and score."""


def joined(
    arrays: Sequence,
    number: int,
    what: str,
    width: int | None = None,
    dtype: type | None = None,
    expected: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Check the arrays of `number` images, n_i x width each, and join them.

    Args:
        arrays: an empty list or array of any shape stands for no rows.
        what: the name of the argument, for messages.
        width: columns; None: those of the first array that has rows.
        dtype: of the result; None: the arrays' own.
        expected: how many rows each is to have; None: any number.

    Returns:
        All rows, sum(n_i) x width, and n_i, int64.

    Raises:
        ValueError: another number or shape.
        UserError: a value is not finite.
    """
    if len(arrays) != number:
        raise ValueError(f"{what} has {len(arrays)} entries for {number} annotations: give one for each, in order")
    filled, counts = [], np.zeros(number, np.int64)
    for index, values in enumerate(arrays):
        array = np.asarray(values, dtype)
        if array.size:
            width = width or array.shape[-1]
            if array.ndim != 2 or array.shape[1] != width:
                raise ValueError(f"{what}[{index}] has shape {array.shape}: expected n x {width}")
            filled.append(array)
            counts[index] = len(array)
    for index in np.flatnonzero(counts != expected) if expected is not None else []:
        raise ValueError(f"{what}[{index}] has {counts[index]} rows: expected {expected[index]}")
    rows = np.concatenate(filled) if filled else np.zeros((0, width or 0), dtype or np.float32)
    if not np.isfinite(rows.sum()) and not np.isfinite(rows).all():  # the sum needs no memory, but may overflow
        index = np.repeat(np.arange(number), counts)[~np.isfinite(rows).all(axis=1)][0]
        raise UserError(
            f"{what}[{index}] holds NaN or infinity: the network that made it has diverged, or the file is damaged"
        )
    return rows, counts
