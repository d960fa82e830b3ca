"""All detections of a gallery in flat arrays, so that a query meets them in one matrix product."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GalleryIndex:
    """Detections of all gallery images, image after image.

    Attributes:
        boxes: n x 4, x1, y1, x2, y2 in pixels of each one's image.
        feats: n x D, float32.
        starts, counts: per image, where its detections begin and how many they are.
    """

    boxes: np.ndarray
    feats: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def build(cls, dets: list[np.ndarray], feats: list[np.ndarray], score_thresh: float, width: int) -> "GalleryIndex":
        """From the detections (n x 5) and features (n x D) of each image; those below `score_thresh` are left out.

        Raises:
            ValueError: D is not `width`, the queries'.
        """
        kept = [image_dets[:, 4] >= score_thresh for image_dets in dets]
        counts = np.array([int(keep.sum()) for keep in kept], dtype=np.int64)
        parts = [image_feats[keep] for image_feats, keep in zip(feats, kept, strict=True) if keep.any()]
        flat = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
        if flat.shape[1] != width:
            raise ValueError(
                f"query_feats have {width} numbers, gallery_feats {flat.shape[1]}: both come from one network"
            )
        boxes = np.concatenate([image_dets[keep, :4] for image_dets, keep in zip(dets, kept, strict=True)])
        return cls(boxes, flat, np.cumsum(counts) - counts, counts)

    def members(self, images: np.ndarray) -> np.ndarray:
        """Positions of the detections of some images (indexes, any order), image after image."""
        counts = self.counts[images]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(self.starts[images] - ends + counts, counts) + np.arange(total)
