"""The two-stage network: stem, RPN, first head, second head (OIM, NAE, SeqNet, GLCNet, SeqNeXt, SEAS)."""

from dataclasses import replace

from torch import Tensor, nn

from models.backbones import FreezePolicy
from models.base import PersonSearchModel, Targets
from models.preprocess import ImageBatch, Preprocess
from models.results import SearchResult
from models.roi import Tail
from models.two_stage.context import Context
from models.two_stage.detection_head import DetectionHead, PassThrough
from models.two_stage.gallery_filter import SceneFilter, nothing_learned
from models.two_stage.pixelwise import relative_scores
from models.two_stage.rpn import ProposalNetwork
from models.two_stage.scene_attention import SceneAttention
from models.two_stage.search_head import SearchHead

IDENTITY_LOSSES = ("search_head.oim.", "search_head.identity_losses.")


class PersonSearch(PersonSearchModel):
    """Faster R-CNN with a second head that computes identity embeddings.

    Args:
        preprocess: resizes, normalises and pads images.
        stem: from images to the res4 map, at stride 16.
        rpn: from the res4 map to proposals.
        detection_head: from proposals to people.
        search_head: from people to embeddings and final boxes.
        loss_weights: factor of each loss, by the loss's name.
        freeze: what of the backbone does not learn.
        gallery_filter: embeds whole images, and scores how likely a person is in them; None: none.
        score_norm: what scores are relative to, see `relative_scores`.
    """

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        stem: nn.Module,
        rpn: ProposalNetwork,
        detection_head: DetectionHead | PassThrough,
        search_head: SearchHead,
        loss_weights: dict[str, float],
        freeze: FreezePolicy,
        gallery_filter: SceneFilter | None = None,
        score_norm: str = "none",
    ):
        super().__init__(preprocess)
        self.stem, self.rpn = stem, rpn
        self.detection_head, self.search_head = detection_head, search_head
        self.gallery_filter = gallery_filter
        self.loss_weights, self.freeze, self.score_norm = loss_weights, freeze, score_norm
        self.identity_memory = tuple(key for key in self.state_dict() if key.startswith(IDENTITY_LOSSES))
        freeze.freeze_parameters(stem, self.tails())

    @property
    def embedding_width(self) -> int:
        return self.search_head.oim.lut.shape[1]

    @property
    def embedding_widths(self) -> dict[str, int]:
        return self.search_head.embedding_widths

    def tails(self) -> list[Tail]:
        """The heads' copies of the backbone's tail."""
        return [module for module in self.modules() if isinstance(module, Tail)]

    def backbone_modules(self) -> list[nn.Module]:
        return [self.stem, *self.tails()]

    def inference_modules(self) -> list[nn.Module]:
        extractors = [m.extractor for m in self.search_head.modules() if isinstance(m, Context | SceneAttention)]
        return [self.stem, self.rpn.head, *self.tails(), *extractors]

    def train(self, mode: bool = True) -> "PersonSearch":
        """Train or eval mode; frozen normalisation layers stay in eval mode."""
        super().train(mode)
        if mode:
            self.freeze.freeze_statistics(self.stem, self.tails())
        return self

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        feature_map = self.stem(batch.tensors)
        proposals, losses = self.rpn.propose(feature_map, batch, targets)
        boxes, head_losses = self.detection_head.losses(feature_map, proposals, batch.sizes, targets)
        losses |= head_losses | self.search_head.losses(feature_map, boxes, targets)
        if self.gallery_filter is not None:
            losses["loss_filter"] = self._filter_loss(self.gallery_filter, feature_map, targets)
        return {name: self.loss_weights[name] * loss for name, loss in losses.items()}

    def _filter_loss(self, gallery_filter: SceneFilter, feature_map: Tensor, targets: Targets) -> Tensor:
        if sum(len(target["labels"]) for target in targets) < 2:  # too few for the second head's batch norms
            return nothing_learned(gallery_filter)
        people = self.search_head.embed_people(feature_map, targets)
        return gallery_filter.loss(gallery_filter.scenes(feature_map), people, targets, self.search_head.oim.lut)

    def search_batch(self, batch: ImageBatch, boxes: list[Tensor]) -> list[SearchResult]:
        feature_map = self.stem(batch.tensors)
        proposals, _ = self.rpn.propose(feature_map, batch)
        people, scores = self.detection_head(feature_map, proposals, batch.sizes)
        results = self.search_head(feature_map, people, scores, batch, boxes)
        if self.gallery_filter is None:
            return results
        scenes = self.gallery_filter.scenes(feature_map)
        return [replace(result, scene=scene) for result, scene in zip(results, scenes, strict=True)]

    def rescore(self, results: list[SearchResult]) -> list[SearchResult]:
        return relative_scores(results, self.score_norm)
