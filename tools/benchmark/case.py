"""The things that can be measured."""

from dataclasses import dataclass
from typing import NamedTuple

Figures = dict[str, list[float] | str]
"""What was measured: samples by name and unit; or, under "failure", why there are none."""
PARTS = ("inference", "training", "evaluation")
VARIANTS = ("release", "straightforward", "channels-last", "fast", "compiled")
"""See tools/README.md."""


@dataclass(frozen=True)
class Case:
    """One thing to measure: a part (inference, training, evaluation) with a variant of the network or a drawn gallery.

    `image_size` is height and width in pixels; `seconds`: for how long the work is repeated.
    """

    part: str
    name: str
    cfg: str
    opts: tuple[str, ...] = ()
    image_size: tuple[int, int] = (900, 1500)
    precision: str = "off"
    batch_size: int = 1
    seconds: float = 10.0

    def __str__(self) -> str:
        detail = "" if self.part == "evaluation" else f", precision {self.precision}, batch {self.batch_size}"
        return f"{self.part}, {self.name}{detail}"


class Size(NamedTuple):
    """Of a drawn gallery: images, identities, boxes of an image with identity (all different), its other detections,
    queries, and images of a query's gallery (0: all)."""

    images: int
    people: int
    known: int
    others: int
    queries: int
    gallery_size: int = 0


SIZES = {
    "tiny": Size(40, 20, 3, 2, 10),
    "prw": Size(6112, 545, 4, 3, 2391),
    "cuhk-100": Size(6978, 2900, 2, 5, 2900, 100),
    "cuhk-500": Size(6978, 2900, 2, 5, 2900, 500),
    "10k": Size(10_000 // 6, 1000, 4, 2, 1000),
    "100k": Size(100_000 // 6, 1000, 4, 2, 1000),
    "1M": Size(1_000_000 // 6, 1000, 4, 2, 1000),
}
"""Drawn galleries by name: those of the datasets, and some by their number of detections."""
