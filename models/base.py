"""The contract of a network: what training, searching and checkpoints know of it, whatever its family."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.preprocess import ImageBatch, Preprocess
from models.releases import Release
from models.results import SearchResult

Targets = list[dict[str, Any]]
"""Ground truth per image: `boxes` n x 4, and `labels` int64 n (identities from 1, -1 without; see `utils.labels`). In
training it may hold `scale` (float), a factor on the size that the image is resized to, and `index` (int), the number
of the image in the training set, which a network with an `ImageMemory` needs."""


class GalleryFilter(Protocol):
    """Scores how likely people are in images, from the embeddings of whole images (scenes)."""

    def scores(self, queries: Tensor, query_scenes: Tensor, gallery_scenes: Tensor) -> Tensor:
        """Scores Q x G in [0, 1], by which similarities of queries to the people of gallery images are multiplied.

        Args:
            queries: Q x D, embeddings of the queries.
            query_scenes: Q x D, the scene of each one's image.
            gallery_scenes: G x D, those of the gallery images.

        Arguments may be on any device; the scores are on the network's.
        """


class PersonSearchModel(nn.Module):
    """Finds the people in images and computes an identity embedding of each.

    A family implements `embedding_width`, `losses` and `search_batch`. Images are RGB, uint8 or float in [0, 1], 3 x H
    x W, of any sizes; boxes are x1, y1, x2, y2 in pixels of the image as given.

    Args:
        preprocess: resizes, normalises and pads images.

    Attributes:
        gallery_filter: scores how likely people are in images; None where the network has none. With one, results of a
            search have a `scene`.
        identity_memory: state-dict keys of the tables of the training set's identities; not needed to search.
    """

    identity_memory: tuple[str, ...] = ()

    @property
    def embedding_widths(self) -> dict[str, int]:
        """Widths of the features whose concatenation is the embedding, by name, in order; empty where it is one."""
        return {}

    def __init__(self, preprocess: Preprocess):
        super().__init__()
        self.preprocess = preprocess
        self.gallery_filter: GalleryFilter | None = None

    # What a family implements
    @property
    def embedding_width(self) -> int:
        """D, the length of an embedding."""
        raise NotImplementedError

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The weighted losses by name, scalars; boxes of the targets are in pixels of the resized images."""
        raise NotImplementedError

    def search_batch(self, batch: ImageBatch, boxes: list[Tensor]) -> list[SearchResult]:
        """Search images of one padded size, and embed the boxes (per image float32 g x 4, pixels of the original)."""
        raise NotImplementedError

    def inference_modules(self) -> list[nn.Module]:
        """Modules whose weights may be stored in half precision, and which torch.compile may compile.

        What they output must be safe at that precision, or cast back to float32.
        """
        return []

    def backbone_modules(self) -> list[nn.Module]:
        """Modules that start from the backbone's weights, and may learn at a rate of their own."""
        return []

    def rescore(self, results: list[SearchResult]) -> list[SearchResult]:
        """The results of all images of a search with their final scores: here as `search_batch` gives them."""
        return results

    # The same for all families
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
        batch = self.preprocess(images, [target.get("scale", 1.0) for target in targets])
        resized = batch.resize_boxes(boxes)
        return self.losses(batch, [t | {"boxes": b} for t, b in zip(targets, resized, strict=True)])

    def query(self, images: list[Tensor], boxes: list[Tensor]) -> list[dict]:
        """Embed given people, each image and box in the context of its image, in one pass.

        Boxes are g x 4 per image; the result is `embeddings` g x D (unit vectors) and `context` per image, see
        `SearchResult.query`.
        """
        return [result.query() for result in self.search(images, boxes)]

    @torch.no_grad()
    def search(self, images: list[Tensor], boxes: list[Tensor] | None = None) -> list[SearchResult]:
        """Search images and embed given boxes, in one pass; `forward` and `query` are views of the results.

        Images of one padded size run together: padding to a larger one would change features near the border.

        Args:
            images: see the class.
            boxes: per image g x 4; None: no boxes. On the CPU their areas are checked; elsewhere that would wait for
                the device.

        Raises:
            ValueError: train mode, or boxes that do not fit their images or have no area.
        """
        if self.training:
            raise ValueError("the network searches in eval mode only: call eval() first")
        boxes = _checked(images, [torch.zeros(0, 4) for _ in images] if boxes is None else boxes)
        by_size = defaultdict(list)
        for index, image in enumerate(images):
            by_size[self.preprocess.padded_size(*image.shape[1:])].append(index)
        results: dict[int, SearchResult] = {}
        for indices in by_size.values():
            batch = self.preprocess([images[i] for i in indices])
            results |= zip(indices, self.search_batch(batch, [boxes[i] for i in indices]), strict=True)
        return self.rescore([results[index] for index in range(len(images))])


@dataclass(frozen=True)
class Family:
    """A kind of network, with all that other files need to know of it.

    Attributes:
        build: as `models.build.build_model`.
        key_prefixes: beginnings of its state-dict keys, by which a checkpoint is recognised.
        releases: weights that others have published for it.
        options: beginnings of the names of the options under MODEL that it has; others may not be set.
        build_fixed: (options, network, most people of an image) -> its twin of fixed shapes, for export, see
            `models.fixed.FixedNetwork`; None: there is none.
    """

    build: Callable[..., PersonSearchModel]
    key_prefixes: tuple[str, ...]
    releases: tuple[Release, ...] = ()
    options: tuple[str, ...] = ("",)
    build_fixed: Callable[..., nn.Module] | None = None


def _checked(images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
    """The boxes as float32 on their images' devices; raises ValueError as `PersonSearchModel.search` says."""
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
