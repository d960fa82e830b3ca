"""From options to a two-stage network."""

from functools import partial

from yacs.config import CfgNode

from models.backbones import STRIDE, FreezePolicy, SplitBackbone, build_backbone
from models.oim import MEANS, OIMLoss
from models.preprocess import Preprocess
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
from models.two_stage.detection_head import PREDICTORS, DetectionHead, PassThrough
from models.two_stage.embedding import (
    LinearEmbedding,
    LinearScoreEmbedding,
    NormAwareEmbedding,
    ProjectedEmbedding,
    RoIEmbedding,
)
from models.two_stage.features import CROP_SIZE, KERNEL_HEIGHTS, POOLS, PartFeatures, TailFeatures
from models.two_stage.identity_losses import CosineTripletLoss, IdentityClassifier
from models.two_stage.multi_granularity import (
    GRANULARITIES,
    ModulatedEmbedding,
    ModulatedFeatures,
    MultiGranularity,
)
from models.two_stage.person_search import PersonSearch
from models.two_stage.pixelwise import SCORE_NORMS, PixelwiseEmbedding
from models.two_stage.rpn import BOX_LOSSES, ProposalNetwork
from models.two_stage.scene_attention import HEADS, SceneAttention
from models.two_stage.search_head import BOX_DELTAS, BoxRegressor, KeepBoxes, SearchHead
from utils.options import check_choices, check_rules


def build(cfg: CfgNode, pretrained: bool = False) -> PersonSearch:
    """See `models.build.build_model`."""
    options, body = cfg.MODEL, cfg.MODEL.BACKBONE
    _check(cfg)
    backbone = build_backbone(body.NAME, body.WEIGHTS if pretrained else "none", body.DROP_PATH)
    backbone.tail.checkpointed = body.CHECKPOINT_TAILS
    # SCORE_NORM applies only where the pixel-wise head gives the score.
    own_score = options.DETECTION_HEAD.TYPE == "none" or options.SEARCH_HEAD.SCORE == "own"
    return PersonSearch(
        preprocess=Preprocess(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, pixels=body.PIXELS),
        stem=backbone.stem,
        rpn=_build_rpn(options.RPN, backbone),
        detection_head=_build_detection_head(options, backbone),
        search_head=_build_search_head(options, backbone),
        loss_weights={f"loss_{name.lower()}": weight for name, weight in options.LOSS_WEIGHTS.items()},
        freeze=FreezePolicy(body.FROZEN_STAGES, body.FROZEN_BN_AFFINE, body.FROZEN_BN_STATISTICS),
        score_norm=options.PIXELWISE.SCORE_NORM if own_score and options.SEARCH_HEAD.TYPE == "pixelwise" else "none",
    )


def _build_rpn(options: CfgNode, backbone: SplitBackbone) -> ProposalNetwork:
    return ProposalNetwork(
        backbone.stem_channels,
        options.ANCHOR_SIZES,
        options.ASPECT_RATIOS,
        options.BOX_LOSS,
        fg_iou_thresh=options.POSITIVE_IOU,
        bg_iou_thresh=options.NEGATIVE_IOU,
        batch_size_per_image=options.BATCH_SIZE,
        positive_fraction=options.POSITIVE_FRACTION,
        pre_nms_top_n={"training": options.PRE_NMS_TRAIN, "testing": options.PRE_NMS_TEST},
        post_nms_top_n={"training": options.POST_NMS_TRAIN, "testing": options.POST_NMS_TEST},
        nms_thresh=options.NMS_THRESH,
    )


def _build_detection_head(options: CfgNode, backbone: SplitBackbone) -> DetectionHead | PassThrough:
    head = options.DETECTION_HEAD
    if head.TYPE == "none":
        return PassThrough()
    features = TailFeatures(backbone.new_tail(), {"res5": backbone.tail_channels}, head.POOL)
    return DetectionHead(
        roi_align=RoIAlign(options.ROI_ALIGN.SIZE, options.ROI_ALIGN.SAMPLING_RATIO, 1 / STRIDE),
        features=features,
        kind=head.TYPE,
        sampler=_sampler(head),
        thresholds=_thresholds(head),
        with_proposals=head.WITH_PROPOSALS,
    )


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


def _build_search_head(options: CfgNode, backbone: SplitBackbone) -> SearchHead:
    head, oim = options.SEARCH_HEAD, options.OIM
    features, contexts, embedding = SEARCH_HEADS[head.TYPE](options, backbone)
    context = options.CONTEXT
    companions = Companions(search_factor=context.COMPANIONS_FACTOR) if context.GROUP == COMPANIONS else None
    length = embedding.num_features * (1 if companions is None else 2)
    channels = backbone.tail_channels
    return SearchHead(
        roi_align=RoIAlign(_crop_size(options), options.ROI_ALIGN.SAMPLING_RATIO, 1 / STRIDE),
        features=features,
        contexts=contexts,
        embedding=embedding,
        box_regressor=(
            BoxRegressor(channels, head.BOX_DELTAS, head.BOX_BATCH_NORM) if head.BOX_DELTAS != "none" else KeepBoxes()
        ),
        oim=OIMLoss(length, oim.NUM_IDS, oim.QUEUE_SIZE, oim.MOMENTUM, oim.SCALAR, oim.MASK_EMPTY, oim.MEAN_OVER),
        identity_losses=_build_identity_losses(options, length),
        sampler=_sampler(head, equal=head.EQUAL_BACKGROUND),
        thresholds=_thresholds(head),
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


def _crop_size(options: CfgNode) -> tuple[int, int]:
    """Height and width of the second head's crops."""
    size = options.ROI_ALIGN.SIZE
    height, width = options.SEARCH_HEAD.ROI_SIZE
    return height or size, width or size


def _sampler(head: CfgNode, equal: bool = False) -> RoISampler:
    return RoISampler(head.BATCH_SIZE, head.POSITIVE_FRACTION, head.FOREGROUND_IOU, head.BACKGROUND_IOU, equal)


def _thresholds(head: CfgNode) -> Thresholds:
    return Thresholds(head.SCORE_THRESH, head.NMS_THRESH, head.MAX_DETECTIONS)


COMPANIONS = "companions"
"""The value of MODEL.CONTEXT.GROUP that is no extractor."""

CHOICES = {
    "RPN.BOX_LOSS": BOX_LOSSES,
    "DETECTION_HEAD.TYPE": (*PREDICTORS, "none"),
    "DETECTION_HEAD.POOL": POOLS,
    "SEARCH_HEAD.TYPE": SEARCH_HEADS,
    "SEARCH_HEAD.POOL": POOLS,
    "SEARCH_HEAD.SCORE": ("first", "own"),
    "SEARCH_HEAD.BOX_DELTAS": (*BOX_DELTAS, "none"),
    "CONTEXT.SCENE": ("none", *SCENE_EXTRACTORS),
    "CONTEXT.GROUP": ("none", *GROUP_EXTRACTORS, COMPANIONS),
    "PIXELWISE.SCORE_NORM": SCORE_NORMS,
    "OIM.MEAN_OVER": MEANS,
}
"""Option of MODEL -> the values that exist."""


def _check(cfg: CfgNode) -> None:
    """Raise UserError for values that do not exist, or do not go together."""
    options = cfg.MODEL
    check_choices("MODEL", options, CHOICES)
    head, size, group = options.SEARCH_HEAD.TYPE, options.SEARCH_HEAD.ROI_SIZE, options.CONTEXT.GROUP
    check_rules({f"MODEL.SEARCH_HEAD.ROI_SIZE must be [height, width], not {size}": len(size) == 2 and min(size) >= 0})
    height, width = _crop_size(options)
    strips = head == "multi_granularity"
    rules = {
        f"MODEL.SEARCH_HEAD.TYPE {head} has no context: set MODEL.CONTEXT.SCENE and MODEL.CONTEXT.GROUP to none": (
            head in WITH_CONTEXT or options.CONTEXT.SCENE == group == "none"
        ),
        f"MODEL.SEARCH_HEAD.TYPE {head} has no parts: set MODEL.PARTS to False": head in WITH_PARTS
        or not options.PARTS,
        f"MODEL.PARTS needs crops of {CROP_SIZE} x {CROP_SIZE}, not {height} x {width}: see MODEL.ROI_ALIGN.SIZE": (
            height == width == CROP_SIZE or not options.PARTS
        ),
        f"MODEL.SEARCH_HEAD.TYPE {head} needs crops of {2 * GRANULARITIES} rows or more, not {height}: set "
        "MODEL.SEARCH_HEAD.ROI_SIZE": height >= 2 * GRANULARITIES or not strips,
        f"MODEL.EMBEDDING.RES4 and RES5 must add up to a multiple of {HEADS}, for the attention of {head}": (
            (options.EMBEDDING.RES4 + options.EMBEDDING.RES5) % HEADS == 0 or not strips
        ),
        "MODEL.CONTEXT.GROUP needs people, which MODEL.DETECTION_HEAD.TYPE none does not find: set one of them": (
            group == "none" or options.DETECTION_HEAD.TYPE != "none"
        ),
        "MODEL.CONTEXT.GROUP needs INPUT.BATCH_SIZE_TRAIN of 2 or more: its batch norm sees one vector an image": (
            group not in ("stack", "multiscale") or cfg.INPUT.BATCH_SIZE_TRAIN >= 2
        ),
    }
    check_rules(rules)
