"""All detections of a gallery under one numbering, so that queries meet them in large matrix products."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

TILE_DETECTIONS = 16384
"""Detections whose features are put next to each other for one matrix product, at least."""


@dataclass(frozen=True)
class GalleryIndex:
    """Detections of all gallery images, image after image; features stay where they are.

    Attributes:
        boxes: n x 4, x1, y1, x2, y2 in pixels of each one's image.
        counts: per image how many detections take part.
        feats: per image the features of all its detections, float32.
        kept: for the rows of `feats`, image after image, whether they take part; n of them do.
    """

    boxes: np.ndarray
    counts: np.ndarray
    feats: list[np.ndarray]
    kept: np.ndarray

    @classmethod
    def build(cls, dets: list[np.ndarray], feats: list[np.ndarray], score_thresh: float, width: int) -> "GalleryIndex":
        """From the detections (n x 5) and features (n x D) of each image; those below `score_thresh` are left out.

        Raises:
            ValueError: D is not `width`, the queries'.
        """
        other = next((rows.shape[1] for rows in feats if len(rows) and rows.shape[1] != width), None)
        if other is not None:
            raise ValueError(f"query_feats have {width} numbers, gallery_feats {other}: both come from one network")
        flat = np.concatenate(dets)
        kept = flat[:, 4] >= score_thresh
        image = np.repeat(np.arange(len(dets)), [len(rows) for rows in dets])
        return cls(flat[kept, :4], np.bincount(image[kept], minlength=len(dets)), feats, kept)

    def __len__(self) -> int:
        """How many detections take part."""
        return len(self.boxes)

    @cached_property
    def starts(self) -> np.ndarray:
        """Per image where its detections begin."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def image(self) -> np.ndarray:
        """Per detection its image, int32."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)

    @cached_property
    def _rows(self) -> np.ndarray:
        """Where the rows of each image begin among all rows, and last the number of all."""
        return np.cumsum([0, *(len(rows) for rows in self.feats)])

    def positions(self, images: np.ndarray) -> np.ndarray:
        """Positions of the detections of some images (indexes, any order), image after image."""
        return _ranges(self.starts[images], self.counts[images])

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of the detections of some images, at least one, in the order of `positions`."""
        kept = self.kept[_ranges(self._rows[images], self._rows[images + 1] - self._rows[images])]
        return np.concatenate([self.feats[image] for image in images.tolist()])[kept]

    def tiles(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The whole gallery in parts: positions, and their features as one array."""
        # A part begins with the first image whose rows begin at or after a multiple of the size.
        bounds = np.unique(np.searchsorted(self._rows, np.arange(0, self._rows[-1], TILE_DETECTIONS)))
        for first, last in pairwise([*bounds[self._rows[bounds] < self._rows[-1]], len(self.feats)]):
            kept = self.kept[self._rows[first] : self._rows[last]]
            feats = np.concatenate([rows for rows in self.feats[first:last] if len(rows)])
            start = self.starts[first]
            yield slice(start, start + np.count_nonzero(kept)), feats if kept.all() else feats[kept]


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The whole numbers from each start on, as many as its count, one range after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - ends + counts, counts) + np.arange(total)
