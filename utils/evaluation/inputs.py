"""Checks of what is handed to the evaluation: shapes and finite numbers, reported once and clearly."""

from collections.abc import Sequence

import numpy as np

DETECTION_COLUMNS = 5
"""x1, y1, x2, y2 (pixels) and score."""
CHECKED_TOGETHER = 256
"""Arrays that are searched for NaN at once: a call for each would take longer than the search itself."""


def check_detections(dets: Sequence, count: int, what: str) -> list[np.ndarray]:
    """The detections of `count` images, each n x 5; an empty list or array of any shape stands for none.

    Raises:
        ValueError: another number of images, another shape, or a value that is not finite; `what` names the argument.
    """
    if len(dets) != count:
        raise ValueError(f"{what} has {len(dets)} entries for {count} images: give one per annotation, in their order")
    checked = []
    for index, image_dets in enumerate(dets):
        array = np.asarray(image_dets)
        array = array.reshape(0, DETECTION_COLUMNS) if array.size == 0 else array
        if array.ndim != 2 or array.shape[1] != DETECTION_COLUMNS:
            raise ValueError(f"{what}[{index}] has shape {array.shape}: expected n x 5, x1 y1 x2 y2 score")
        checked.append(array)
    _check_finite(checked, what)
    return checked


def check_features(feats: Sequence, dets: list[np.ndarray], what: str) -> list[np.ndarray]:
    """The features of the detections `dets`, each n x D, float32.

    Raises:
        ValueError: features and detections differ in number, D differs between images, or a value is not finite.
    """
    if len(feats) != len(dets):
        raise ValueError(
            f"{what} has {len(feats)} entries for {len(dets)} images: give one per annotation, in their order"
        )
    checked, width = [], None
    for index, (image_feats, image_dets) in enumerate(zip(feats, dets, strict=True)):
        array = np.asarray(image_feats, dtype=np.float32)
        if len(image_dets) == 0:
            array = np.zeros((0, width or 0), np.float32)
        elif array.ndim != 2 or len(array) != len(image_dets) or array.shape[1] != (width or array.shape[1]):
            expected = f"{len(image_dets)} x {width or 'D'}"
            raise ValueError(f"{what}[{index}] has shape {array.shape}: expected {expected}, a row per detection")
        else:
            width = array.shape[1]
        checked.append(array)
    _check_finite(checked, what)
    return checked


def check_queries(feats: Sequence, count: int, what: str) -> np.ndarray:
    """The features of `count` queries, each D or 1 x D, as count x D, float32.

    Raises:
        ValueError: another number, differing D, or a value that is not finite.
    """
    if len(feats) != count:
        raise ValueError(f"{what} has {len(feats)} entries for {count} queries: give one per query, in their order")
    rows = [np.asarray(feat, dtype=np.float32) for feat in feats]
    for index, row in enumerate(rows):
        if row.size != row.shape[-1] or row.size != rows[0].size:
            raise ValueError(
                f"{what}[{index}] has shape {row.shape}: expected {rows[0].size} numbers, one vector per query"
            )
    _check_finite(rows, what)
    return np.stack([row.reshape(-1) for row in rows])


def _check_finite(arrays: list[np.ndarray], what: str) -> None:
    for start in range(0, len(arrays), CHECKED_TOGETHER):
        together = arrays[start : start + CHECKED_TOGETHER]
        if not np.isfinite(np.concatenate(together, axis=None)).all():
            index = start + next(i for i, array in enumerate(together) if not np.isfinite(array).all())
            raise ValueError(
                f"{what}[{index}] holds NaN or infinity: the network that made it has diverged, or the file is damaged"
            )
