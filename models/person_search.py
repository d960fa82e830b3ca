"""The whole network: transform, stem, RPN, first head, second head."""

from collections import defaultdict
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.backbones import FreezePolicy
from models.detection_head import DetectionHead, PassThrough
from models.features import RoIFeatures
from models.postprocess import SearchedImage
from models.rpn import ProposalNetwork
from models.search_head import SearchHead
from models.tails import Tail


class PersonSearch(nn.Module):
    """Finds the people of whole images and embeds who they are.

    Args:
        transform: resizes, normalises and pads.
        stem: from images to the res4 map.
        rpn: from the res4 map to proposals.
        detection_head: from proposals to people.
        search_head: from people to embeddings and final boxes.
        loss_weights: factor of each loss, by the loss's name.
        freeze: what of the backbone does not learn.
    """

    def __init__(
        self,
        *,
        transform: GeneralizedRCNNTransform,
        stem: nn.Module,
        rpn: ProposalNetwork,
        detection_head: DetectionHead | PassThrough,
        search_head: SearchHead,
        loss_weights: dict[str, float],
        freeze: FreezePolicy,
    ):
        super().__init__()
        self.transform, self.stem, self.rpn = transform, stem, rpn
        self.detection_head, self.search_head = detection_head, search_head
        self.loss_weights, self.freeze = loss_weights, freeze
        self.precision: torch.dtype | None = None  # reduced precision of a network of `models.inference`
        self.to(memory_format=torch.channels_last)  # 1.2 to 1.6 times as fast on CPUs
        freeze.freeze_parameters(stem, self.tails())

    def tails(self) -> list[Tail]:
        """The heads' copies of the backbone's tail."""
        return [tail for module in self.modules() if isinstance(module, RoIFeatures) for tail in module.tails()]

    def train(self, mode: bool = True) -> "PersonSearch":
        """Train or eval mode; frozen batch norms stay in eval mode."""
        super().train(mode)
        if mode:
            self.freeze.freeze_statistics(self.stem, self.tails())
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None):
        """Eval mode: search images as a gallery. Train mode: the weighted losses.

        Args:
            images: float RGB, 3 x H x W in [0, 1], of any sizes.
            targets: in train mode, per image `boxes` n x 4 in its own pixels and `labels` int64 n (person ids, -1 for
                people without identity).

        Returns:
            Eval mode: per image `boxes` n x 4 in its own pixels, `scores` n, `embeddings` n x D, unit vectors times the
            score (if MODEL.SEARCH_HEAD.WEIGHT_BY_SCORE). An image's result does not depend on the others of the batch,
            but for the extractor coattention and NAE+'s SCORE_NORM batch. Train mode: loss name -> scalar.

        Raises:
            ValueError: train mode without targets, or a target that does not fit its image.
        """
        if self.training:
            return self._losses(images, targets)
        return [image.as_gallery() for image in self.search(images)]

    def query(self, images: list[Tensor], boxes: list[Tensor]) -> list[dict]:
        """Embed given people, each image and box in the context of its image, in one pass.

        Args:
            images: as in `forward`.
            boxes: per image g x 4, in its own pixels.

        Returns:
            Per image `embeddings` g x D (unit vectors) and `context`: the image searched as a gallery, the given boxes
            first, embeddings not weighted by the scores.
        """
        return [image.as_query() for image in self.search(images, boxes)]

    @torch.no_grad()
    def search(self, images: list[Tensor], boxes: list[Tensor] | None = None) -> list[SearchedImage]:
        """What `forward` and `query` are made from, for callers that need both of an image.

        Images that are padded to the same size run together, each of them as if it were alone: padding to a larger one
        would change an image's features near its border.
        """
        if self.training:
            raise ValueError("the network searches in eval mode only: call eval() first")
        boxes = [image.new_zeros(0, 4) for image in images] if boxes is None else _fitting(images, boxes)
        _check_areas(boxes)
        resized = [resize_image(self.transform, image) for image in images]
        groups = defaultdict(list)
        for index, image in enumerate(resized):
            groups[self.padded_size(image)].append(index)
        results: list[SearchedImage | None] = [None] * len(images)
        for indexes in groups.values():
            group = self.search_resized(
                [resized[i] for i in indexes], [boxes[i] for i in indexes], [images[i].shape[-2:] for i in indexes]
            )
            for index, result in zip(indexes, group, strict=True):
                results[index] = result
        return results

    def padded_size(self, resized: Tensor) -> tuple[int, int]:
        """Height and width to which a resized image is padded."""
        divisor = self.transform.size_divisible
        height, width = (-(-side // divisor) * divisor for side in resized.shape[-2:])
        return height, width

    @torch.no_grad()
    def search_resized(
        self, resized: list[Tensor], given: list[Tensor], own_sizes: list[tuple[int, int]]
    ) -> list[SearchedImage]:
        """As `search`, of images that are resized already and have one padded size.

        Args:
            resized: what `resize_image` gives.
            given: per image g x 4 float32, in its own pixels.
            own_sizes: height and width of each image before it was resized.
        """
        device = resized[0].device
        autocast = torch.autocast(device.type, dtype=self.precision) if self.precision is not None else nullcontext()
        with autocast:
            return self._search_padded(resized, given, own_sizes, device)

    def _search_padded(
        self, resized: list[Tensor], given: list[Tensor], own_sizes: list[tuple[int, int]], device: torch.device
    ) -> list[SearchedImage]:
        sizes = [tuple(image.shape[-2:]) for image in resized]
        scales = [_scale(own, size, device) for own, size in zip(own_sizes, sizes, strict=True)]
        batch = self.transform.batch_images(resized, self.transform.size_divisible)
        feature_map = self._res4(batch)
        proposals = self.rpn.propose(feature_map, tuple(batch.shape[-2:]), sizes)
        detections = self.detection_head(feature_map, proposals, sizes)
        return self.search_head(feature_map, detections, given, sizes, scales)

    def _res4(self, batch: Tensor) -> Tensor:
        """The res4 map of padded images B x 3 x H x W."""
        return self.stem(batch.contiguous(memory_format=torch.channels_last))

    def _losses(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None) -> dict[str, Tensor]:
        if targets is None:
            raise ValueError("train mode needs targets: per image `boxes` n x 4 and `labels` n")
        boxes = _fitting(images, [target["boxes"] for target in targets])
        if images[0].device.type == "cpu":  # elsewhere looking would wait for what is left of the step before
            _check_areas(boxes)
        batch, targets = self.transform(images, targets)
        feature_map = self._res4(batch.tensors)
        padded = tuple(batch.tensors.shape[-2:])
        proposals, losses = self.rpn.propose_and_learn(feature_map, padded, batch.image_sizes, targets)
        boxes, head_losses = self.detection_head.losses(feature_map, proposals, batch.image_sizes, targets)
        losses |= head_losses | self.search_head.losses(feature_map, boxes, targets)
        return {name: self.loss_weights[name] * loss for name, loss in losses.items()}


def resize_image(transform: GeneralizedRCNNTransform, image: Tensor) -> Tensor:
    """An image (float RGB, 3 x H x W in [0, 1]) as the stem takes it but for the padding: normalised and resized.

    A function of the transform alone, so that loader processes can do it without the network.
    """
    return transform.resize(transform.normalize(image), None)[0]


def _fitting(images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
    """The boxes as float tensors on their image's device; raises ValueError where shapes do not fit the images."""
    if len(images) != len(boxes):
        raise ValueError(f"{len(images)} images but {len(boxes)} sets of boxes")
    fitting = [torch.as_tensor(b, dtype=torch.float32, device=i.device) for i, b in zip(images, boxes, strict=True)]
    for index, image_boxes in enumerate(fitting):
        if image_boxes.dim() != 2 or image_boxes.shape[1] != 4:
            raise ValueError(f"the boxes of image {index} must be n x 4, but are {tuple(image_boxes.shape)}")
    return fitting


def _check_areas(boxes: list[Tensor]) -> None:
    """Raises ValueError where a box (per image n x 4) has no area."""
    for index, image_boxes in enumerate(boxes):
        if not (image_boxes[:, 2:] > image_boxes[:, :2]).all():
            raise ValueError(f"image {index} has a box without area; boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2")


def _scale(own: tuple[int, int], resized: tuple[int, int], device: torch.device) -> Tensor:
    """Factors on x1, y1, x2, y2 from the resized image to its own pixels; sizes are height, width."""
    vertical, horizontal = (a / b for a, b in zip(own, resized, strict=True))
    return torch.tensor([horizontal, vertical, horizontal, vertical], device=device)
