"""Several training sets as one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, repeat

from torch.utils.data import ConcatDataset

from datasets.augmentation import Item
from datasets.base import PersonSearchDataset


class Mixture(ConcatDataset):
    """Training sets one after another, whose identities stay apart: those of each follow those of the one before.

    Args:
        parts: training splits.
        shares: of the images of an epoch, one for each part.

    Attributes:
        num_identities: of all parts together.
        frequencies: how often an epoch shows each image, on average. Those of the first part come once.
    """

    def __init__(self, parts: Sequence[PersonSearchDataset], shares: Sequence[float] = (1.0,)):
        super().__init__(parts)
        *self._before, self.num_identities = accumulate((part.num_identities for part in parts), initial=0)
        wanted = [share / shares[0] * len(parts[0]) for share in shares]
        per_part = (repeat(count / len(part), len(part)) for part, count in zip(parts, wanted, strict=True))
        self.frequencies = list(chain.from_iterable(per_part))

    def __getitem__(self, index: int) -> Item:
        """Image `index` and its target, see PersonSearchDataset."""
        number, part, own_index = self._find(index)
        image, target = part[own_index]
        labels = target["labels"]
        return image, {**target, "index": index, "labels": labels.where(labels < 1, labels + self._before[number])}

    def is_wide(self, index: int) -> bool:
        """As PersonSearchDataset.is_wide."""
        _, part, own_index = self._find(index)
        return part.is_wide(own_index)

    def _find(self, index: int) -> tuple[int, PersonSearchDataset, int]:
        """Number of the part that holds image `index`, the part, and the image's index in it."""
        number = bisect_right(self.cumulative_sizes, index)
        return number, self.datasets[number], index - (self.cumulative_sizes[number] - len(self.datasets[number]))
