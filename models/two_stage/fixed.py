"""A two-stage network with fixed numbers of proposals and people, for export; see `models.fixed`."""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torchvision.ops import roi_align

from models.backbones import STRIDE
from models.fixed import FixedNetwork, keep_best, pick
from models.results import Thresholds
from models.roi import RoIAlign, RoIs
from models.two_stage.boxes import BOX_CODER, PERSON, BoxCoder, person_deltas
from models.two_stage.context import Context, SceneContext
from models.two_stage.person_search import PersonSearch


class FixedRoIs(RoIs):
    """A feature map B x C x h x w and as many boxes for each image, B x n x 4."""

    def __init__(self, roi_align: RoIAlign, feature_map: Tensor, boxes: Tensor):
        self.roi_align, self.feature_map, self.boxes = roi_align, feature_map, boxes

    @cached_property
    def crops(self) -> Tensor:
        """The crops B n x C x h x w."""
        batch, count, _ = self.boxes.shape
        images = torch.arange(batch).repeat_interleave(count).to(self.boxes)
        rows = torch.cat([images[:, None], self.boxes.flatten(0, 1)], dim=1)
        crop = self.roi_align
        return roi_align(self.feature_map, rows, crop.output_size, crop.spatial_scale, crop.sampling_ratio)


class FixedPersonSearch(FixedNetwork):
    """The twin of a network with a first head, in float32.

    Args:
        network: the network, in eval mode; its modules are used as they are.
        people: most people that are found in an image. Where there are more, the best-scored ones are, and the group
            context is theirs.
    """

    def __init__(self, network: PersonSearch, people: int):
        super().__init__()
        self.network, self.people = network, people
        self.first_thresholds = replace(network.detection_head.thresholds, max_detections=people)
        head = network.search_head
        self.thresholds, self.weight_by_score = head.thresholds, head.weight_by_score

    def forward(self, images: Tensor, sizes: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        head, given = self.network.search_head, boxes.shape[1]
        feature_map = self.network.stem(images)
        limits = sizes.flip(1).repeat(1, 2)[:, None]
        people, scores, found = self._people(feature_map, *self._proposals(feature_map, limits), limits)
        rois = FixedRoIs(head.roi_align, feature_map, torch.cat([boxes, people], dim=1))
        vectors = {name: value for features in head.features for name, value in features(rois).items()}
        res5 = vectors["res5"]
        rows = res5.unflatten(0, (-1, given + self.people))
        vectors |= {name: self._context(context, rois, rows, found) for name, context in head.contexts.items()}
        embeddings, logits = head.embedding(vectors)
        embeddings, deltas = (values.unflatten(0, rows.shape[:2]) for values in (embeddings, head.box_regressor(res5)))
        if head.own_score:
            scores = head.embedding.scores(logits).unflatten(0, rows.shape[:2])[:, given:]
        decoded = _decoded(BOX_CODER, person_deltas(deltas[:, given:].flatten(0, 1)), people, limits)
        return decoded, scores.where(found, 0), found, embeddings[:, given:], embeddings[:, :given]

    def _proposals(self, feature_map: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """B x P x 4, and whether there is one, B x P."""
        rpn = self.network.rpn
        (logits,), (deltas,) = rpn.head([feature_map])
        rpn.anchor_generator.set_cell_anchors(torch.float32, feature_map.device)
        anchors = rpn.anchor_generator.grid_anchors([list(logits.shape[2:])], [[STRIDE, STRIDE]])[0]
        logits = logits.permute(0, 2, 3, 1).flatten(1)
        deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        logits, best = logits.topk(torch.sym_min(rpn.pre_nms_top_n(), logits.shape[1]), dim=1)
        boxes = _decoded(rpn.box_coder, pick(deltas, best).flatten(0, 1), anchors[best], limits)
        # Exclusive there, inclusive in the RPN: its threshold is 0, and no probability is below.
        thresholds = Thresholds(rpn.score_thresh - 1, rpn.nms_thresh, rpn.post_nms_top_n())
        index, found = keep_best(boxes, logits.sigmoid(), thresholds, rpn.min_size)
        return pick(boxes, index), found

    def _people(
        self, feature_map: Tensor, proposals: Tensor, usable: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes B x N x 4, scores B x N, and whether there is one."""
        head = self.network.detection_head
        res5 = head.features(FixedRoIs(head.roi_align, feature_map, proposals))["res5"]
        logits, deltas = head.predictor(res5)
        scores = logits.softmax(-1)[:, PERSON].unflatten(0, usable.shape).where(usable, -1)
        boxes = _decoded(BOX_CODER, person_deltas(deltas), proposals, limits)
        index, found = keep_best(boxes, scores, self.first_thresholds)
        return pick(boxes, index), scores.gather(1, index), found

    def _context(self, context: Context, rois: FixedRoIs, res5: Tensor, found: Tensor) -> Tensor:
        """A context's vectors, B (k + N) x C, from the rows of `res5`, B x (k + N) x C, those of given boxes first."""
        batch, rows, channels = res5.shape
        if isinstance(context, SceneContext):
            vectors = context.extractor(rois.feature_map).amax((2, 3))
            return vectors[:, None].expand(-1, rows, -1).flatten(0, 1)
        given, people = res5.split([rows - found.shape[1], found.shape[1]], dim=1)
        mean = people.where(found[..., None], 0).sum(1, keepdim=True) / found.sum(1).clamp(min=1)[:, None, None]
        # Where nobody is found, each given box is its own group.
        groups = torch.cat([mean.where(found.any(1)[:, None, None], given), mean], dim=1)
        vectors = context.extractor(groups.flatten(0, 1)[..., None, None]).amax((2, 3))
        vectors = vectors.view(batch, -1, channels)
        own, common = vectors[:, :-1], vectors[:, -1:]
        return torch.cat([own, common.expand(-1, found.shape[1], -1)], dim=1).flatten(0, 1)


def _decoded(coder: BoxCoder, deltas: Tensor, boxes: Tensor, limits: Tensor) -> Tensor:
    """The boxes B x n x 4 that deltas (B n) x 4 encode, cut at `limits` B x 1 x 4, the far corners of the images."""
    decoded = coder.decode_single(deltas, boxes.flatten(0, 1)).view(boxes.shape)
    return torch.minimum(decoded.clamp(min=0), limits)
