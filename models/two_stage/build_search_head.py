"""From options to the second head of a two-stage network."""

from functools import partial

from yacs.config import CfgNode

from models.backbones import STRIDE, SplitBackbone
from models.oim import OIMLoss
from models.results import Thresholds
from models.roi import RoIAlign
from models.two_stage.boxes import RoISampler
from models.two_stage.context import (
    GROUP_EXTRACTORS,
    SCENE_EXTRACTORS,
    Companions,
    Context,
    GroupContext,
    SceneContext,
)
from models.two_stage.embedding import (
    LinearEmbedding,
    LinearScoreEmbedding,
    NormAwareEmbedding,
    ProjectedEmbedding,
    RoIEmbedding,
)
from models.two_stage.features import KERNEL_HEIGHTS, PartFeatures, TailFeatures
from models.two_stage.identity_losses import CosineTripletLoss, IdentityClassifier
from models.two_stage.multi_granularity import ModulatedEmbedding, ModulatedFeatures, MultiGranularity
from models.two_stage.pixelwise import PixelwiseEmbedding
from models.two_stage.scene_attention import SceneAttention
from models.two_stage.search_head import BoxRegressor, KeepBoxes, SearchHead

COMPANIONS = "companions"
"""The value of MODEL.CONTEXT.GROUP that is no extractor."""

Parts = tuple[list[TailFeatures | PartFeatures | ModulatedFeatures], dict[str, Context], RoIEmbedding]
"""What differs between second heads: the features of a RoI, its contexts, and the embedding of both."""


def _projected(options: CfgNode, backbone: SplitBackbone, kind: type[ProjectedEmbedding]) -> Parts:
    """Vectors of the RoI, its parts and its context in one embedding."""
    whole = {"res4": backbone.stem_channels, "res5": backbone.tail_channels}
    features: list[TailFeatures | PartFeatures] = [TailFeatures(backbone.new_tail(), whole, options.SEARCH_HEAD.POOL)]
    if options.PARTS:
        features.append(PartFeatures([backbone.new_tail() for _ in KERNEL_HEIGHTS], backbone.tail_channels))
    contexts = _build_contexts(options.CONTEXT, backbone)
    # Concatenated in the order of the release of 2024: the RoI, its parts, its context.
    channels = {name: length for module in features for name, length in module.channels.items()}
    channels |= {name: context.channels for name, context in contexts.items()}
    widths = {name.lower(): width for name, width in options.EMBEDDING.items()}
    widths = {name: widths.get(name, options.EMBEDDING.PART) for name in channels}
    return features, contexts, kind(channels, widths)


def _linear(options: CfgNode, backbone: SplitBackbone) -> Parts:
    """The OIM baseline: one linear layer on the res5 vector."""
    features = TailFeatures(backbone.new_tail(), {"res5": backbone.tail_channels}, options.SEARCH_HEAD.POOL)
    return [features], {}, LinearEmbedding(backbone.tail_channels, options.EMBEDDING.RES5)


def _pixelwise(options: CfgNode, backbone: SplitBackbone) -> Parts:
    """NAE+: maps of the RoI, embedded position by position."""
    channels = {"res4": backbone.stem_channels, "res5": backbone.tail_channels}
    features = TailFeatures(backbone.new_tail(), channels, pool=None)
    widths = {"res4": options.EMBEDDING.RES4, "res5": options.EMBEDDING.RES5}
    return [features], {}, PixelwiseEmbedding(channels, widths, options.PIXELWISE.NORMALISED)


def _multi_granularity(options: CfgNode, backbone: SplitBackbone) -> Parts:
    """SEAS: strips of the RoI and what the whole image adds to them, and contexts beside them."""
    channels = {"res4": backbone.stem_channels, "res5": backbone.tail_channels}
    widths = {name.lower(): width for name, width in options.EMBEDDING.items()}
    strips = MultiGranularity(channels, {name: widths[name] for name in channels})
    scene = SceneAttention(backbone.stem_channels, strips.width)
    features = ModulatedFeatures(backbone.new_tail(), backbone.tail_channels, strips, scene)
    contexts = _build_contexts(options.CONTEXT, backbone)
    lengths = {name: context.channels for name, context in contexts.items()}
    return [features], contexts, ModulatedEmbedding(strips.width, lengths, widths)


SEARCH_HEADS = {
    "norm_aware": partial(_projected, kind=NormAwareEmbedding),
    "linear_score": partial(_projected, kind=LinearScoreEmbedding),
    "linear": _linear,
    "pixelwise": _pixelwise,
    "multi_granularity": _multi_granularity,
}
"""MODEL.SEARCH_HEAD.TYPE -> function that builds the parts of the second head."""
WITH_PARTS = ("norm_aware", "linear_score")
WITH_CONTEXT = (*WITH_PARTS, "multi_granularity")


def build_search_head(options: CfgNode, backbone: SplitBackbone) -> SearchHead:
    head, oim = options.SEARCH_HEAD, options.OIM
    features, contexts, embedding = SEARCH_HEADS[head.TYPE](options, backbone)
    context = options.CONTEXT
    companions = Companions(search_factor=context.COMPANIONS_FACTOR) if context.GROUP == COMPANIONS else None
    length = embedding.num_features * (1 if companions is None else 2)
    channels = backbone.tail_channels
    return SearchHead(
        roi_align=RoIAlign(crop_size(options), options.ROI_ALIGN.SAMPLING_RATIO, 1 / STRIDE),
        features=features,
        contexts=contexts,
        embedding=embedding,
        box_regressor=(
            BoxRegressor(channels, head.BOX_DELTAS, head.BOX_BATCH_NORM) if head.BOX_DELTAS != "none" else KeepBoxes()
        ),
        oim=OIMLoss(length, oim.NUM_IDS, oim.QUEUE_SIZE, oim.MOMENTUM, oim.SCALAR, oim.MASK_EMPTY, oim.MEAN_OVER),
        identity_losses=_build_identity_losses(options, length),
        sampler=sampler(head, equal=head.EQUAL_BACKGROUND),
        thresholds=thresholds(head),
        companions=companions,
        group_labelled_only=context.GROUP_LABELLED_ONLY,
        own_score=head.SCORE == "own",
        weight_by_score=head.WEIGHT_BY_SCORE,
    )


def _build_contexts(options: CfgNode, backbone: SplitBackbone) -> dict[str, Context]:
    contexts: dict[str, Context] = {}
    if options.SCENE != "none":
        channels = backbone.stem_channels
        contexts["scene"] = SceneContext(SCENE_EXTRACTORS[options.SCENE](channels), channels)
    if options.GROUP in GROUP_EXTRACTORS:
        channels = backbone.tail_channels
        contexts["group"] = GroupContext(GROUP_EXTRACTORS[options.GROUP](channels), channels)
    return contexts


def _build_identity_losses(options: CfgNode, length: int) -> dict[str, CosineTripletLoss | IdentityClassifier]:
    """The losses beside OIM that have a weight."""
    losses: dict[str, CosineTripletLoss | IdentityClassifier] = {}
    if options.LOSS_WEIGHTS.BOX_TRIPLET:
        losses["triplet"] = CosineTripletLoss(options.SEARCH_HEAD.TRIPLET_MARGIN)
    if options.LOSS_WEIGHTS.BOX_SOFTMAX:
        losses["softmax"] = IdentityClassifier(length, options.OIM.NUM_IDS)
    return losses


def crop_size(options: CfgNode) -> tuple[int, int]:
    """Height and width of the second head's crops."""
    size = options.ROI_ALIGN.SIZE
    height, width = options.SEARCH_HEAD.ROI_SIZE
    return height or size, width or size


def sampler(head: CfgNode, equal: bool = False) -> RoISampler:
    return RoISampler(head.BATCH_SIZE, head.POSITIVE_FRACTION, head.FOREGROUND_IOU, head.BACKGROUND_IOU, equal)


def thresholds(head: CfgNode) -> Thresholds:
    return Thresholds(head.SCORE_THRESH, head.NMS_THRESH, head.MAX_DETECTIONS)
