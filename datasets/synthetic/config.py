"""Options of a synthetic dataset."""

from dataclasses import dataclass, field
from typing import Any

from datasets.writers import FORMATS
from utils.errors import UserError

_SHARES = ("unlabelled_share", "empty_share", "group_loyalty", "place_loyalty", "home_share", "lookalikes",
           "min_visibility")  # fmt: skip
_SMALLEST = {"train_identities": 1, "test_identities": 1, "cameras": 1, "train_images": 4, "gallery_images": 4,
             "queries": 1, "width": 96, "height": 64, "group_size": 1, "people": 1, "props": 0, "seed": 0}  # fmt: skip


def _option(default: Any, meaning: str) -> Any:
    """A field with its default, and its meaning for `--help`."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of a synthetic dataset; equal options give equal bytes. Shares and probabilities are 0 to 1.

    Raises:
        UserError: a value outside its range.
    """

    format: str = _option("cuhk_sysu", "On-disk format: cuhk_sysu, prw (six cameras at most) or movienet_cs.")
    seed: int = _option(1, "Of everything that is drawn.")
    train_identities: int = _option(60, "People with identity in the training images.")
    test_identities: int = _option(40, "People with identity in the gallery.")
    cameras: int = _option(6, "Cameras, each with a scene of its own.")
    train_images: int = _option(240, "Training images.")
    gallery_images: int = _option(160, "Gallery images.")
    queries: int = _option(60, "Queries, at most: each needs an identity seen in two gallery images.")
    width: int = _option(640, "Width of the images in pixels.")
    height: int = _option(384, "Height of the images in pixels.")
    people: float = _option(4.0, "Mean people in an image that is not empty, those without identity included.")
    person_height: tuple[float, float] = _option(
        (0.2, 0.7),
        "Heights of the farthest and the nearest people, as shares of the image's height.",
    )
    unlabelled_share: float = _option(0.2, "Share of the people who have no identity (pid -1).")
    empty_share: float = _option(0.04, "Share of the images without people.")
    group_size: int = _option(3, "Mean size of the groups that people belong to; sizes vary by half of it either way.")
    group_loyalty: float = _option(
        0.9,
        "Probability that a member walks with its group; a random person takes the place of one who does not.",
    )
    place_loyalty: float = _option(
        0.8,
        "Probability that a group appears at one of its own cameras rather than at any camera.",
    )
    home_share: float = _option(0.4, "Share of the cameras that are a group's own (at least two cameras).")
    lookalikes: float = _option(
        0.0,
        "Share of the identities that look exactly like one of another group, so that only context separates them.",
    )
    min_visibility: float = _option(0.3, "Visible share of a person's silhouette below which it gets no box.")
    props: int = _option(4, "Mean number of lamp posts, bins, trees and cars for each camera.")

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format {self.format!r}: one of {', '.join(FORMATS)} is needed")
        for name, smallest in _SMALLEST.items():
            if getattr(self, name) < smallest:
                raise UserError(f"{name} {getattr(self, name)}: at least {smallest} is needed")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)}: a share between 0 and 1 is needed")
        low, high = self.person_height
        if not 0.05 <= low < high <= 0.95:
            raise UserError(f"person_height {low} {high}: two rising shares within 0.05 ... 0.95 are needed")
