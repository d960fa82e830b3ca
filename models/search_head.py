"""The second head: who each box shows, and the final box."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.detection_head import Detections
from models.embedding import new_projection
from models.oim import OIMLoss
from models.postprocess import SearchedImage, Thresholds
from models.roi import RoIAlign, RoISampler, box_regression_loss, decode_boxes, new_box_coder


@dataclass
class Encoding:
    """What the head knows of R boxes: embeddings R x D (unit vectors), person logits R, box deltas R x 8."""

    embeddings: Tensor
    logits: Tensor
    deltas: Tensor


def new_box_regressor(channels: int) -> nn.Module:
    """Two classes' box deltas from the res5 vector: a linear layer with a batch norm (the BN neck of NAE)."""
    return new_projection(channels, 2 * 4)


class SearchHead(nn.Module):
    """Embeds boxes, in training, in galleries and in queries by the one path `encode`.

    Args:
        roi_align: crops RoIs out of the res4 map.
        features: modules from crops to named vectors; one of them gives `res5`.
        contexts: name -> module from (res4 map, res5 vectors of each image's people) to one vector an image.
        embedding: from all named vectors to embeddings and person logits, with the loss of the logits.
        oim: the identity loss.
        sampler: chooses RoIs for training.
        thresholds: which boxes stay at test.
        group_labelled_only: in training, the people of the contexts are those with an identity.
    """

    def __init__(
        self,
        *,
        roi_align: RoIAlign,
        features: list[nn.Module],
        contexts: dict[str, nn.Module],
        embedding: nn.Module,
        oim: OIMLoss,
        sampler: RoISampler,
        thresholds: Thresholds,
        group_labelled_only: bool = False,
    ):
        super().__init__()
        self.roi_align = roi_align
        self.features, self.contexts = nn.ModuleList(features), nn.ModuleDict(contexts)
        self.embedding, self.oim = embedding, oim
        self.box_regressor = new_box_regressor(features[0].channels["res5"])
        self.box_coder = new_box_coder()
        self.sampler, self.thresholds = sampler, thresholds
        self.group_labelled_only = group_labelled_only

    def encode(self, feature_map: Tensor, boxes: list[Tensor], is_person: list[Tensor]) -> Encoding:
        """Embed boxes (per image n_i x 4, pixels of the resized image), wherever they come from.

        `is_person` (per image bool n_i) marks the boxes whose mean is the image's group.
        """
        crops = self.roi_align(feature_map, boxes)
        vectors = {name: value for part in self.features for name, value in part(crops).items()}
        counts = [len(image_boxes) for image_boxes in boxes]
        res5 = vectors["res5"].split(counts)
        people = [image_res5[mask] for image_res5, mask in zip(res5, is_person, strict=True)]
        image_of_box = torch.repeat_interleave(torch.tensor(counts, device=crops.device), output_size=len(crops))
        for name, context in self.contexts.items():
            vectors[name] = context(feature_map, people)[image_of_box]
        embeddings, logits = self.embedding(vectors)
        return Encoding(embeddings, logits, self.box_regressor(vectors["res5"]))

    def losses(self, feature_map: Tensor, boxes: list[Tensor], targets: list[dict]) -> dict[str, Tensor]:
        """Losses of RoIs sampled among `boxes` (per image n x 4) and the targets' own."""
        samples = self.sampler(boxes, targets)
        labels = torch.cat([s.labels for s in samples])
        group = [s.labels > 0 if self.group_labelled_only else s.is_person for s in samples]
        encoding = self.encode(feature_map, [s.boxes for s in samples], group)
        return {
            "loss_box_cls": self.embedding.classification_loss(encoding.logits, samples),
            "loss_box_reg": box_regression_loss(encoding.deltas, samples, self.box_coder),
            "loss_box_reid": self.oim(encoding.embeddings, labels),
        }

    def forward(
        self,
        feature_map: Tensor,
        detections: list[Detections],
        given: list[Tensor],
        sizes: list[tuple[int, int]],
        scales: list[Tensor],
    ) -> list[SearchedImage]:
        """Embed the first head's detections, and the given boxes in the context of the people detected around them.

        The final score of a box is the first head's (first classification score).

        Args:
            feature_map: B x C x h x w.
            detections: per image.
            given: per image g x 4, in the image's own pixels.
            sizes: height and width of each resized image.
            scales: per image 4 factors from the resized image to its own pixels.
        """
        asked = [boxes / scale for boxes, scale in zip(given, scales, strict=True)]
        boxes = [torch.cat([a, d.boxes]) for a, d in zip(asked, detections, strict=True)]
        group = [_group(len(a), len(d.boxes), a.device) for a, d in zip(asked, detections, strict=True)]
        encoding = self.encode(feature_map, boxes, group)
        moved = decode_boxes(encoding.deltas, boxes, sizes, self.box_coder)
        embeddings = encoding.embeddings.split([len(image_boxes) for image_boxes in boxes])
        return [
            SearchedImage(
                boxes=image_moved[len(asked_for) :],
                scores=found.scores,
                embeddings=image_embeddings[len(asked_for) :],
                given_boxes=asked_for,
                given_embeddings=image_embeddings[: len(asked_for)],
                scale=scale,
                thresholds=self.thresholds,
            )
            for image_moved, image_embeddings, found, asked_for, scale in zip(
                moved, embeddings, detections, given, scales, strict=True
            )
        ]


def _group(given: int, detected: int, device: torch.device) -> Tensor:
    """Mask of an image's group among its boxes, given ones first: the detected people or, without any, the given."""
    detected_mask = torch.arange(given + detected, device=device) >= given
    return detected_mask if detected else ~detected_mask
