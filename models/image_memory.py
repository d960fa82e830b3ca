"""A memory of training images: what a network made of each when it saw it last, to train on beside a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from utils.labels import BACKGROUND


@dataclass(frozen=True)
class Visit:
    """What a network made of a training image.

    Attributes:
        people: n x D float32, embeddings of its people.
        labels: int64 n, their identities; -1 without.
        scene: D float32, the embedding of the image.
    """

    people: Tensor
    labels: Tensor
    scene: Tensor

    @cached_property
    def identities(self) -> frozenset[int]:
        """The identities that it shows."""
        return frozenset(label for label in self.labels.tolist() if label > BACKGROUND)

    def copy_to(self, device: torch.device | str) -> "Visit":
        """A copy on a device, without gradient."""
        return Visit(*(x.detach().to(device, copy=True) for x in (self.people, self.labels, self.scene)))


class ImageMemory(nn.Module):
    """The last visit of each training image, on the CPU (GFN's image table).

    It is no part of the weights: checkpoints hold it apart (`packed`), and a copy of a network starts with none of it.

    Args:
        positives: images to draw for an identity that show it, too.
        negatives: images to draw for an identity that show somebody else of its image instead.

    Attributes:
        visits: by the number of the image in the training set. Visits are replaced, never changed, so that a shallow
            copy holds what was remembered at a time.
    """

    def __init__(self, positives: int = 1, negatives: int = 1):
        super().__init__()
        self.positives, self.negatives = positives, negatives
        self.visits: dict[int, Visit] = {}

    def __deepcopy__(self, _: dict) -> "ImageMemory":
        return ImageMemory(self.positives, self.negatives)

    def draw(self, images: Sequence[int], identities: Sequence[frozenset[int]]) -> list[Visit]:
        """Remembered images to train on beside a batch, at random, none that is in it, and each once.

        For each of as many identities as the batch has images, at random, there are `positives` images that show it,
        and `negatives` that do not, but show another identity of the same image of the batch; fewer where there are
        not so many.

        Args:
            images: numbers of the batch's images.
            identities: those that each of them shows.
        """
        wanted = frozenset().union(*identities)
        company = {n: visit.identities for n, visit in self.visits.items() if not wanted.isdisjoint(visit.identities)}
        free = {number: shown for number, shown in company.items() if number not in images}
        drawn: list[Visit] = []

        def take(candidates: list[int], number: int) -> None:
            for image in _shuffled(candidates)[:number]:
                del free[image]
                drawn.append(self.visits[image])

        for label in _shuffled(sorted(wanted))[: len(images)]:
            others = next(shown for shown in identities if label in shown)
            take([image for image, shown in free.items() if label in shown], self.positives)
            take([i for i, shown in free.items() if label not in shown and shown & others], self.negatives)
        return drawn

    def remember(self, images: Sequence[int], visits: Iterable[Visit]) -> None:
        """Replace the visits of images; one without people is left out."""
        self.visits |= {number: visit for number, visit in zip(images, visits, strict=True) if len(visit.labels)}

    def packed(self) -> dict[str, Tensor]:
        """All visits as joint tensors, for a checkpoint; nothing where there are none."""
        if not self.visits:
            return {}
        visits = list(self.visits.values())
        return {
            "images": torch.tensor(list(self.visits)),
            "counts": torch.tensor([len(visit.labels) for visit in visits]),
            "people": torch.cat([visit.people for visit in visits]),
            "labels": torch.cat([visit.labels for visit in visits]),
            "scenes": torch.stack([visit.scene for visit in visits]),
        }

    def unpack(self, packed: dict[str, Tensor]) -> None:
        """Remember what `packed` gave, and nothing else; KeyError or RuntimeError where it is something else."""
        self.visits = {}
        if packed:
            counts = packed["counts"].tolist()
            parts = (packed["people"].split(counts), packed["labels"].split(counts), packed["scenes"])
            self.remember(packed["images"].tolist(), map(Visit, *parts))


def memory_of(network: nn.Module) -> ImageMemory | None:
    """The memory that a network trains with, if it has one."""
    return next((module for module in network.modules() if isinstance(module, ImageMemory)), None)


def _shuffled(values: Sequence[int]) -> list[int]:
    return [values[place] for place in torch.randperm(len(values)).tolist()]
