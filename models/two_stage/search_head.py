"""The second head: the identity embedding of each box, and its final score and position."""

from typing import Any

import torch
from torch import Tensor, nn

from models.base import Targets
from models.oim import OIMLoss
from models.preprocess import ImageBatch
from models.results import SearchResult, Thresholds
from models.roi import RoIAlign, RoIs
from models.two_stage.boxes import RoISampler, Samples, box_regression_loss, decode_boxes
from models.two_stage.context import Companions, Context
from models.two_stage.embedding import RoIEmbedding, projection
from models.two_stage.features import PartFeatures, TailFeatures
from models.two_stage.identity_losses import CosineTripletLoss, IdentityClassifier
from models.two_stage.multi_granularity import ModulatedFeatures
from utils.labels import BACKGROUND

BOX_DELTAS = {"per_class": 8, "agnostic": 4}
"""Which box deltas are predicted -> how many: those of background and person apart, or one set for both (SeqNeXt)."""


class BoxRegressor(nn.Sequential):
    """Box deltas, R x 4 or 8 float32, from the res5 vector R x C or map R x C x h x w, which is averaged.

    Args:
        channels: C.
        deltas: a key of `BOX_DELTAS`.
        batch_norm: a batch norm behind the linear layer (the BN neck of NAE).
    """

    def __init__(self, channels: int, deltas: str, batch_norm: bool):
        linear, norm = nn.Linear(channels, BOX_DELTAS[deltas]), nn.BatchNorm1d(BOX_DELTAS[deltas])
        super().__init__(*(projection(linear, norm) if batch_norm else [linear]))

    def forward(self, res5: Tensor) -> Tensor:
        with torch.autocast(res5.device.type, enabled=False):
            return super().forward(res5.float() if res5.dim() == 2 else res5.float().mean((2, 3)))

    def losses(self, deltas: Tensor, samples: list[Samples]) -> dict[str, Tensor]:
        """See `box_regression_loss`."""
        return {"loss_box_reg": box_regression_loss(deltas, samples)}


class KeepBoxes(nn.Module):
    """No box deltas: the boxes that the head is given are final (SEAS)."""

    def forward(self, res5: Tensor) -> Tensor:
        """Zeros, R x 4."""
        return torch.zeros(len(res5), 4, device=res5.device)

    def losses(self, *_: Any) -> dict[str, Tensor]:
        """No losses."""
        return {}


class SearchHead(nn.Module):
    """Embeds boxes, in training, in galleries and in queries by the one path `encode`.

    Args:
        roi_align: crops RoIs out of the res4 map.
        features: give the features of a RoI; one of them gives `res5`.
        contexts: give each RoI the vector of its context, by name.
        embedding: from all features to embeddings and person logits.
        box_regressor: from `res5` to box deltas.
        oim: the identity loss.
        identity_losses: more of them, by name.
        sampler: chooses RoIs for training.
        thresholds: which boxes stay at test.
        companions: appends the people around each RoI to its embedding.
        group_labelled_only: in training, the people of a group are those with an identity.
        own_score: the score of the embedding is final, even where the first head has scored the boxes.
        weight_by_score: gallery embeddings are multiplied by their scores.
    """

    def __init__(
        self,
        *,
        roi_align: RoIAlign,
        features: list[TailFeatures | PartFeatures | ModulatedFeatures],
        contexts: dict[str, Context],
        embedding: RoIEmbedding,
        box_regressor: BoxRegressor | KeepBoxes,
        oim: OIMLoss,
        identity_losses: dict[str, CosineTripletLoss | IdentityClassifier],
        sampler: RoISampler,
        thresholds: Thresholds,
        companions: Companions | None = None,
        group_labelled_only: bool = False,
        own_score: bool = False,
        weight_by_score: bool = True,
    ):
        super().__init__()
        self.roi_align = roi_align
        self.features, self.contexts = nn.ModuleList(features), nn.ModuleDict(contexts)
        self.embedding, self.companions, self.oim = embedding, companions, oim
        self.identity_losses, self.box_regressor = nn.ModuleDict(identity_losses), box_regressor
        self.sampler, self.thresholds = sampler, thresholds
        self.group_labelled_only = group_labelled_only
        self.own_score, self.weight_by_score = own_score, weight_by_score

    @property
    def embedding_widths(self) -> dict[str, int]:
        """See `PersonSearchModel.embedding_widths`."""
        widths = self.embedding.widths
        return widths if self.companions is None else widths | {"companions": self.embedding.num_features}

    def encode(
        self, feature_map: Tensor, boxes: list[Tensor], group_masks: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings R x D, logits R x ... and box deltas R x 4 or 8 of boxes (per image n x 4, in the resized image).

        For `group_masks` see `GroupContext`.
        """
        embeddings, logits, res5 = self._embed(feature_map, boxes, group_masks)
        return embeddings, logits, self.box_regressor(res5)

    def _embed(
        self, feature_map: Tensor, boxes: list[Tensor], group_masks: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings and logits as `encode`, and the feature `res5`."""
        rois = RoIs(self.roi_align, feature_map, boxes)
        vectors = {name: value for features in self.features for name, value in features(rois).items()}
        res5 = vectors["res5"]
        vectors |= {name: context(rois, res5, group_masks) for name, context in self.contexts.items()}
        embeddings, logits = self.embedding(vectors)
        if self.companions is not None:
            embeddings = self.companions(embeddings, torch.cat(boxes), group_masks)
        return embeddings, logits, res5

    def embed_people(self, feature_map: Tensor, targets: Targets) -> Tensor:
        """Embeddings R x D of the people of targets, one image after another; each is of the group of its image."""
        labels = [target["labels"] for target in targets]
        group_masks = [own > 0 if self.group_labelled_only else own != BACKGROUND for own in labels]
        return self._embed(feature_map, [target["boxes"].float() for target in targets], group_masks)[0]

    def losses(self, feature_map: Tensor, boxes: list[Tensor], targets: Targets) -> dict[str, Tensor]:
        """Losses of RoIs sampled among `boxes` (per image n x 4) and the targets' own."""
        samples = self.sampler(boxes, targets)
        group_masks = [s.labels > 0 if self.group_labelled_only else s.is_person for s in samples]
        embeddings, logits, deltas = self.encode(feature_map, [s.boxes for s in samples], group_masks)
        labels, rows = torch.cat([s.labels for s in samples]), self.oim.lut
        return {
            "loss_box_cls": self.embedding.classification_loss(logits, samples),
            **self.box_regressor.losses(deltas, samples),
            **{f"loss_box_{name}": loss(embeddings, labels, rows) for name, loss in self.identity_losses.items()},
            "loss_box_reid": self.oim(embeddings, labels),  # last: it updates the rows
        }

    def forward(
        self,
        feature_map: Tensor,
        people: list[Tensor],
        scores: list[Tensor] | None,
        batch: ImageBatch,
        query_boxes: list[Tensor],
    ) -> list[SearchResult]:
        """Embed the people that the first head found, and the queries in the context of the people around them.

        Args:
            feature_map: B x C x h x w.
            people: boxes per image n x 4, in pixels of the resized image.
            scores: per image n, the first head's, which are final (SeqNet's first classification score) unless
                `own_score`; None where nothing has scored the boxes: this head does.
            batch: the images.
            query_boxes: per image g x 4, in pixels of the original image.
        """
        boxes, group_masks = [], []
        for queries, found in zip(batch.resize_boxes(query_boxes), people, strict=True):
            boxes.append(torch.cat([queries, found]))
            group_masks += _group_masks(len(queries), len(found), queries.device)
        embeddings, logits, deltas = self.encode(feature_map, boxes, group_masks)
        counts = [len(image_boxes) for image_boxes in boxes]
        decoded = batch.restore_boxes(decode_boxes(deltas, boxes, batch.sizes))
        if scores is None or self.own_score:
            own_scores = self.embedding.scores(logits).split(counts)
            scores = [own[len(given) :] for own, given in zip(own_scores, query_boxes, strict=True)]
        return [
            SearchResult(
                boxes=found[len(given) :],
                scores=image_scores,
                embeddings=vectors[len(given) :],
                query_boxes=given,
                query_embeddings=vectors[: len(given)],
                thresholds=self.thresholds,
                weight_by_score=self.weight_by_score,
            )
            for found, image_scores, vectors, given in zip(
                decoded, scores, embeddings.split(counts), query_boxes, strict=True
            )
        ]


def _group_masks(queries: int, detected: int, device: torch.device) -> list[Tensor]:
    """The group masks of an image's boxes, queries first, for `encode`.

    The group of all boxes are the detected people. Where nobody is detected, each query is its own group, so that its
    embedding does not depend on the other queries.
    """
    if detected or not queries:
        return [torch.arange(queries + detected, device=device) >= queries]
    return [torch.ones(1, dtype=torch.bool, device=device)] * queries
