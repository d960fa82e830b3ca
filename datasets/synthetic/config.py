"""What to draw: every option of a synthetic dataset."""

from dataclasses import dataclass

from datasets.writers import FORMATS, PRW_CAMERAS


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of a synthetic dataset; equal options give equal bytes. Shares and probabilities are 0 to 1."""

    format: str = "cuhk_sysu"
    """On-disk format: cuhk_sysu, prw (six cameras at most) or movienet_cs."""
    seed: int = 1
    train_identities: int = 60
    test_identities: int = 40
    cameras: int = 6
    train_images: int = 240
    gallery_images: int = 160
    queries: int = 60
    """At most: a query needs an identity seen in two gallery images."""
    width: int = 640
    height: int = 384
    people: float = 4.0
    """Mean people in an image that is not empty, those without identity included."""
    person_height: tuple = (0.2, 0.7)
    """Heights of the farthest and the nearest people, as shares of the image's height."""
    unlabelled_share: float = 0.2
    """Share of the people who have no identity (pid -1)."""
    empty_share: float = 0.04
    """Share of the images without people."""
    group_size: int = 3
    """Mean size of the groups that people belong to; sizes vary by half of it either way."""
    group_loyalty: float = 0.9
    """Probability that a member walks with its group; a place left free goes to a random person."""
    place_loyalty: float = 0.8
    """Probability that a group appears at one of its own cameras rather than at any camera."""
    home_share: float = 0.4
    """Share of the cameras that are a group's own (at least two cameras)."""
    lookalikes: float = 0.0
    """Share of the identities that look exactly like one of another group, so that only context tells them apart."""
    min_visibility: float = 0.3
    """Visible share of a person's silhouette below which it gets no box."""
    props: int = 4
    """Mean lamp posts, bins, trees and cars for each camera."""

    def __post_init__(self):
        _check_kinds(self)
        for name in ("unlabelled_share", "empty_share", "group_loyalty", "place_loyalty", "home_share", "lookalikes",
                     "min_visibility"):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: a share between 0 and 1 is needed")
        low, high = self.person_height
        if not 0.05 <= low < high <= 0.95:
            raise ValueError(
                f"person_height {low} {high}: two rising shares of the image's height in 0.05 ... 0.95 are needed"
            )


def _check_kinds(config):
    if config.format not in FORMATS:
        raise ValueError(f"format {config.format!r}: one of {', '.join(FORMATS)} is needed")
    if config.format == "prw" and config.cameras > max(PRW_CAMERAS):
        raise ValueError(f"cameras {config.cameras}: PRW's format has {max(PRW_CAMERAS)} at most")
    least = {"train_identities": 1, "test_identities": 1, "cameras": 1, "train_images": 4, "gallery_images": 4,
             "queries": 1, "width": 96, "height": 64, "group_size": 1, "people": 1, "props": 0, "seed": 0}  # fmt: skip
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise ValueError(f"{name} {getattr(config, name)}: at least {smallest} is needed")
