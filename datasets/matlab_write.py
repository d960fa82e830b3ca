"""Values and files as Matlab's .mat format holds them, in the layouts that SciPy reads back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from utils.errors import UserError


def cell(values: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """A Matlab cell array of `values`, in `shape`."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out.reshape(shape)


def struct(rows: Sequence[Sequence[Any]], fields: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """A Matlab struct array: one element per row, a row holds a value for each field."""
    return np.array([tuple(row) for row in rows], dtype=[(field, object) for field in fields]).reshape(shape)


def text(value: str) -> np.ndarray:
    """A string, as a char array."""
    return np.array([value])


def unsigned(values: Any) -> np.ndarray:
    """The smallest unsigned integer type that fits, as Matlab's files have it: readers must widen before they add."""
    values = np.atleast_2d(np.asarray(values))
    if values.min(initial=0) < 0:
        raise UserError(f"negative value in {values.tolist()}: the format is unsigned, clip boxes to the image first")
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def xywh(box: Sequence[float]) -> list[int]:
    """x1, y1, x2, y2 to x, y, width, height, as plain integers."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def save(path: Path, **variables: np.ndarray) -> None:
    """Write `variables` to the .mat file `path`; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, do_compression=True)
