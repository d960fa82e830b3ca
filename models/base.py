"""The contract of a network: what training, searching and checkpoints know of it, whatever its family."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.preprocess import ImageBatch, Preprocess
from models.releases import Release
from models.results import SearchResult

Targets = list[dict[str, Tensor]]
"""Ground truth per image: `boxes` n x 4, and `labels` int64 n (identities from 1, -1 without; see `utils.labels`)."""

SearchBatch = Callable[[ImageBatch, list[Tensor]], list[SearchResult]]


class PersonSearchModel(nn.Module):
    """Finds the people of whole images and embeds who they are.

    A family implements `losses` and `search_batch`. Images are RGB, uint8 or float in [0, 1], 3 x H x W, of any sizes;
    boxes are x1, y1, x2, y2 in pixels of the image as given.

    Args:
        preprocess: resizes, normalises and pads images.

    Attributes:
        identity_memory: state-dict keys of what the training set's identities are remembered by; not needed to search.
    """

    identity_memory: tuple[str, ...] = ()

    def __init__(self, preprocess: Preprocess):
        super().__init__()
        self.preprocess = preprocess

    # ------------------------------------------------------------------------------------- what a family implements
    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The weighted losses by name, scalars; boxes of the targets are in pixels of the resized images."""
        raise NotImplementedError

    def search_batch(self, batch: ImageBatch, boxes: list[Tensor]) -> list[SearchResult]:
        """Search images of one padded size, and embed the boxes (per image float32 g x 4, pixels of the original)."""
        raise NotImplementedError

    def inference_modules(self) -> list[nn.Module]:
        """The modules that may run in half precision and be compiled: their outputs are not coordinates or scores.

        In them, a batch norm that is registered right behind a convolution follows it, and may be folded into it.
        """
        return []

    # --------------------------------------------------------------------------------------- the same for all families
    def forward(self, images: list[Tensor], targets: Targets | None = None) -> dict[str, Tensor] | list[dict]:
        """Train mode: the weighted losses, name -> scalar. Eval mode: each image as part of a gallery.

        Args:
            images: see the class.
            targets: in train mode the ground truth, boxes in pixels of the image as given.

        Returns:
            In eval mode `SearchResult.gallery` of each image. It does not depend on the other images of the batch,
            unless an option says so.

        Raises:
            ValueError: train mode without targets, or targets that do not fit their images.
        """
        if not self.training:
            return [result.gallery() for result in self.search(images)]
        if targets is None:
            raise ValueError("train mode needs targets: per image `boxes` n x 4 and `labels` n")
        boxes = _checked(images, [target["boxes"] for target in targets])
        batch = self.preprocess(images)
        resized = batch.resize_boxes(boxes)
        return self.losses(batch, [t | {"boxes": b} for t, b in zip(targets, resized, strict=True)])

    def query(self, images: list[Tensor], boxes: list[Tensor]) -> list[dict]:
        """Embed given people, each image and box in the context of its image, in one pass.

        Boxes are g x 4 per image; the result is `embeddings` g x D (unit vectors) and `context` per image, see
        `SearchResult.query`.
        """
        return [result.query() for result in self.search(images, boxes)]

    def search(self, images: list[Tensor], boxes: list[Tensor] | None = None) -> list[SearchResult]:
        """Search images and embed given boxes, in one pass: what `forward` and `query` are two views of.

        Args:
            images: see the class.
            boxes: per image g x 4; None: no boxes. Checked where they are: on the CPU they cost no wait for a device.

        Raises:
            ValueError: train mode, or boxes that do not fit their images or have no area.
        """
        return self._search_by_size(self.search_batch, images, boxes)

    @torch.no_grad()
    def _search_by_size(
        self, search_batch: SearchBatch, images: list[Tensor], boxes: list[Tensor] | None
    ) -> list[SearchResult]:
        """Run images of one padded size together: padding to a larger one would change features near the border."""
        if self.training:
            raise ValueError("the network searches in eval mode only: call eval() first")
        boxes = _checked(images, [torch.zeros(0, 4) for _ in images] if boxes is None else boxes)
        groups = defaultdict(list)
        for index, image in enumerate(images):
            groups[self.preprocess.padded_size(*image.shape[1:])].append(index)
        results: dict[int, SearchResult] = {}
        for indices in groups.values():
            batch = self.preprocess([images[i] for i in indices])
            results |= zip(indices, search_batch(batch, [boxes[i] for i in indices]), strict=True)
        return [results[index] for index in range(len(images))]


@dataclass(frozen=True)
class Family:
    """A kind of network, with all that other files need to know of it.

    Attributes:
        build: from the options and whether to load pretrained weights to the network, in train mode on the CPU.
        key_prefixes: beginnings of its state-dict keys, by which a checkpoint is recognised.
        releases: weights that others have published for it.
    """

    build: Callable[..., PersonSearchModel]
    key_prefixes: tuple[str, ...]
    releases: tuple[Release, ...] = ()


def _checked(images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
    """The boxes as float32 on their images' devices; raises ValueError where they do not fit or have no area.

    On other devices than the CPU areas are not looked at: that would wait for the device.
    """
    if len(images) != len(boxes):
        raise ValueError(f"{len(images)} images but {len(boxes)} sets of boxes")
    checked = []
    for index, (image, given) in enumerate(zip(images, boxes, strict=True)):
        given = torch.as_tensor(given, dtype=torch.float32)
        if given.dim() != 2 or given.shape[1] != 4:
            raise ValueError(f"the boxes of image {index} must be n x 4, but are {tuple(given.shape)}")
        if given.device.type == "cpu" and not (given[:, 2:] > given[:, :2]).all():
            raise ValueError(f"image {index} has a box without area; boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2")
        checked.append(given.to(image.device, non_blocking=True))
    return checked
