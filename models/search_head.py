"""The second head: who each box shows, and the final box."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.detection_head import Detections
from models.embedding import new_projection
from models.features import RoIFeatures, average_pool
from models.oim import OIMLoss
from models.postprocess import SearchedImage, Thresholds
from models.roi import NUM_CLASSES, RoISampler, box_regression_loss, decode_boxes, new_box_coder
from models.roi_align import RoIAlign, RoIs


@dataclass
class Encoding:
    """What the head knows of R boxes: embeddings R x D, person logits (R x ..., see embedding), box deltas R x 8."""

    embeddings: Tensor
    logits: Tensor
    deltas: Tensor


class BoxRegressor(nn.Sequential):
    """Both classes' box deltas, R x 8 float32, from the res5 vector R x C or map R x C x h x w, which is averaged.

    Args:
        channels: C.
        batch_norm: a batch norm behind the linear layer (the BN neck of NAE).
    """

    def __init__(self, channels: int, batch_norm: bool):
        deltas = NUM_CLASSES * 4
        super().__init__(*(new_projection(channels, deltas) if batch_norm else [nn.Linear(channels, deltas)]))

    def forward(self, res5: Tensor) -> Tensor:
        with torch.autocast(res5.device.type, enabled=False):
            return super().forward(res5.float() if res5.dim() == 2 else average_pool(res5.float()))


class SearchHead(nn.Module):
    """Embeds boxes, in training, in galleries and in queries by the one path `encode`.

    Args:
        roi_align: crops RoIs out of the res4 map.
        features: what is known of a crop; one of them gives `res5`.
        contexts: name -> module from (res4 map, res5 vectors of each image's people) to one vector an image.
        embedding: from all features to embeddings and person logits, see `models.embedding`.
        box_regressor: from `res5` to box deltas.
        oim: the identity loss.
        sampler: chooses RoIs for training.
        thresholds: which boxes stay at test.
        group_labelled_only: in training, the people of the contexts are those with an identity.
        weight_by_score: gallery embeddings carry the score.
    """

    def __init__(
        self,
        *,
        roi_align: RoIAlign,
        features: list[RoIFeatures],
        contexts: dict[str, nn.Module],
        embedding: nn.Module,
        box_regressor: BoxRegressor,
        oim: OIMLoss,
        sampler: RoISampler,
        thresholds: Thresholds,
        group_labelled_only: bool = False,
        weight_by_score: bool = True,
    ):
        super().__init__()
        self.roi_align = roi_align
        self.features, self.contexts = nn.ModuleList(features), nn.ModuleDict(contexts)
        self.embedding, self.oim = embedding, oim
        self.box_regressor = box_regressor
        self.box_coder = new_box_coder()
        self.sampler, self.thresholds = sampler, thresholds
        self.group_labelled_only, self.weight_by_score = group_labelled_only, weight_by_score

    def encode(self, feature_map: Tensor, boxes: list[Tensor], group: list[Tensor]) -> Encoding:
        """Embed boxes (per image n_i x 4, pixels of the resized image), wherever they come from.

        `group` (per image int64) tells which of the boxes are the image's group.
        """
        rois = RoIs(self.roi_align, feature_map, boxes)
        vectors = {name: value for part in self.features for name, value in part(rois).items()}
        res5 = vectors["res5"].split(rois.counts)
        people = [image_res5[members] for image_res5, members in zip(res5, group, strict=True)]
        for name, context in self.contexts.items():
            of_images = context(feature_map, people)
            vectors[name] = torch.cat([v.expand(n, -1) for v, n in zip(of_images, rois.counts, strict=True)])
        embeddings, logits = self.embedding(vectors)
        return Encoding(embeddings, logits, self.box_regressor(vectors["res5"]))

    def losses(self, feature_map: Tensor, boxes: list[Tensor], targets: list[dict]) -> dict[str, Tensor]:
        """Losses of RoIs sampled among `boxes` (per image n x 4) and the targets' own."""
        samples = self.sampler(boxes, targets)
        labels = torch.cat([s.labels for s in samples])
        # What the host has to know of the samples it asks for here, behind the sampler, which has waited for the device
        # anyway. From here on a step waits for nothing.
        group = [(s.labels > 0 if self.group_labelled_only else s.is_person).nonzero()[:, 0] for s in samples]
        plan = self.oim.plan(labels)
        encoding = self.encode(feature_map, [s.boxes for s in samples], group)
        return {
            "loss_box_cls": self.embedding.classification_loss(encoding.logits, samples),
            "loss_box_reg": box_regression_loss(encoding.deltas, samples, self.box_coder),
            "loss_box_reid": self.oim(encoding.embeddings, labels, plan),
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

        The final score of a box is the first head's (first classification score, SeqNet); where there is none, its own.

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
        counts = [len(image_boxes) for image_boxes in boxes]
        moved = decode_boxes(encoding.deltas, boxes, sizes, self.box_coder)
        embeddings = encoding.embeddings.split(counts)
        scores = self._scores(encoding.logits, detections, [len(a) for a in asked])
        return [
            SearchedImage(
                boxes=moved[i][len(given[i]) :],
                scores=scores[i],
                embeddings=embeddings[i][len(given[i]) :],
                given_boxes=given[i],
                given_embeddings=embeddings[i][: len(given[i])],
                scale=scales[i],
                thresholds=self.thresholds,
                weighted=self.weight_by_score,
            )
            for i in range(len(boxes))
        ]

    def _scores(self, logits: Tensor, detections: list[Detections], given: list[int]) -> list[Tensor]:
        """The detections' scores: the first head's, or this head's own where it gave none; given boxes do not count."""
        counts = [given_here + len(found.boxes) for given_here, found in zip(given, detections, strict=True)]
        is_detected = torch.cat(
            [torch.arange(n, device=logits.device) >= g for n, g in zip(counts, given, strict=True)]
        )
        own = self.embedding.scores(logits[is_detected], [len(found.boxes) for found in detections])
        return [o if found.scores is None else found.scores for o, found in zip(own, detections, strict=True)]


def _group(given: int, detected: int, device: torch.device) -> Tensor:
    """Which of an image's boxes, given ones first, are its group: the detected people or, without any, the given."""
    first, last = (given, given + detected) if detected else (0, given)
    return torch.arange(first, last, device=device)
