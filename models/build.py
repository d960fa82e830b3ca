"""From options to the network: the only place where the models read a config."""

from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from yacs.config import CfgNode

from models.backbones import STRIDE, Backbone, FreezePolicy, build_backbone
from models.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS, GroupContext, SceneContext
from models.detection_head import DetectionHead, PassThrough
from models.embedding import LinearEmbedding, NormAwareEmbedding
from models.features import GlobalFeatures, MapFeatures, TailFeatures
from models.oim import OIMLoss
from models.parts import CROP_SIZE, KERNEL_HEIGHTS, PartFeatures
from models.person_search import PersonSearch
from models.pixelwise import PixelwiseEmbedding
from models.postprocess import Thresholds
from models.roi import RoISampler
from models.roi_align import RoIAlign
from models.rpn import ProposalNetwork, anchors_and_head
from models.search_head import BoxRegressor, SearchHead

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_model(cfg: CfgNode, pretrained: bool = False) -> PersonSearch:
    """The network that the options describe, in train mode, on the CPU.

    Args:
        cfg: the options, see `defaults.py`.
        pretrained: load MODEL.BACKBONE.WEIGHTS, which may download them. Off, as at test time or before a checkpoint is
            loaded, the weights are random.

    Raises:
        ValueError: an option has a value that does not exist, or that does not go with another one.
        FileNotFoundError: the backbone's weights are missing and cannot be downloaded.
    """
    options = cfg.MODEL
    backbone = build_backbone(options.BACKBONE.NAME, options.BACKBONE.WEIGHTS if pretrained else "none")
    backbone.tail.checkpointed = options.BACKBONE.CHECKPOINT_TAILS
    return PersonSearch(
        transform=GeneralizedRCNNTransform(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, IMAGENET_MEAN, IMAGENET_STD),
        stem=backbone.stem,
        rpn=_build_rpn(options.RPN, backbone),
        detection_head=_build_detection_head(options, backbone),
        search_head=_build_search_head(options, backbone),
        loss_weights={f"loss_{name.lower()}": weight for name, weight in options.LOSS_WEIGHTS.items()},
        freeze=FreezePolicy(
            stages=options.BACKBONE.FROZEN_STAGES,
            bn_affine=options.BACKBONE.FROZEN_BN_AFFINE,
            bn_statistics=options.BACKBONE.FROZEN_BN_STATISTICS,
        ),
    )


def _build_rpn(options: CfgNode, backbone: Backbone) -> ProposalNetwork:
    return ProposalNetwork(
        box_loss=options.BOX_LOSS,
        **anchors_and_head(backbone.stem_channels, options.ANCHOR_SIZES, options.ASPECT_RATIOS),
        fg_iou_thresh=options.POSITIVE_IOU,
        bg_iou_thresh=options.NEGATIVE_IOU,
        batch_size_per_image=options.BATCH_SIZE,
        positive_fraction=options.POSITIVE_FRACTION,
        pre_nms_top_n={"training": options.PRE_NMS_TRAIN, "testing": options.PRE_NMS_TEST},
        post_nms_top_n={"training": options.POST_NMS_TRAIN, "testing": options.POST_NMS_TEST},
        nms_thresh=options.NMS_THRESH,
    )


def _build_detection_head(options: CfgNode, backbone: Backbone) -> DetectionHead | PassThrough:
    head = options.DETECTION_HEAD
    if _choice("MODEL.DETECTION_HEAD.TYPE", head.TYPE, ("faster_rcnn", "none")) == "none":
        return PassThrough()
    features = TailFeatures(backbone.new_tail(), backbone.tail_channels, head.POOL)
    return DetectionHead(_roi_align(options), features, _sampler(head), _thresholds(head))


def _build_search_head(options: CfgNode, backbone: Backbone) -> SearchHead:
    head = options.SEARCH_HEAD
    kind = _choice("MODEL.SEARCH_HEAD.TYPE", head.TYPE, tuple(SEARCH_HEADS))
    features, contexts, embedding = SEARCH_HEADS[kind](options, backbone)
    oim = options.OIM
    return SearchHead(
        roi_align=_roi_align(options),
        features=features,
        contexts=contexts,
        embedding=embedding,
        box_regressor=BoxRegressor(backbone.tail_channels, head.BOX_BATCH_NORM),
        oim=OIMLoss(embedding.num_features, oim.NUM_IDS, oim.QUEUE_SIZE, oim.MOMENTUM, oim.SCALAR),
        sampler=_sampler(head),
        thresholds=_thresholds(head),
        group_labelled_only=options.CONTEXT.GROUP_LABELLED_ONLY,
        weight_by_score=head.WEIGHT_BY_SCORE,
    )


def _norm_aware_parts(options: CfgNode, backbone: Backbone) -> tuple[list, dict, nn.Module]:
    """NAE, SeqNet and GLCNet: vectors of the RoI, its parts and its context in one norm-aware embedding."""
    pool = options.SEARCH_HEAD.POOL
    features = [GlobalFeatures(backbone.new_tail(), backbone.stem_channels, backbone.tail_channels, pool)]
    if options.PARTS:
        if options.ROI_ALIGN.SIZE != CROP_SIZE:
            raise ValueError(f"MODEL.PARTS needs MODEL.ROI_ALIGN.SIZE {CROP_SIZE}, not {options.ROI_ALIGN.SIZE}")
        features.append(PartFeatures([backbone.new_tail() for _ in KERNEL_HEIGHTS], backbone.tail_channels))
    contexts = _build_contexts(options, backbone)
    channels = {name: length for part in features for name, length in part.channels.items()}
    widths = dict.fromkeys(channels, options.EMBEDDING.PART)
    widths |= {name.lower(): width for name, width in options.EMBEDDING.items()}
    # The order of the release of 2024: the RoI, its parts, its context.
    channels |= {name: context.channels for name, context in contexts.items()}
    return features, contexts, NormAwareEmbedding(channels, widths)


def _linear_parts(options: CfgNode, backbone: Backbone) -> tuple[list, dict, nn.Module]:
    """The OIM baseline: one linear layer on the res5 vector."""
    _refuse_additions(options)
    features = TailFeatures(backbone.new_tail(), backbone.tail_channels, options.SEARCH_HEAD.POOL)
    return [features], {}, LinearEmbedding(features.channels["res5"], options.EMBEDDING.RES5)


def _pixelwise_parts(options: CfgNode, backbone: Backbone) -> tuple[list, dict, nn.Module]:
    """NAE+: maps of the RoI, embedded position by position."""
    _refuse_additions(options)
    features = MapFeatures(backbone.new_tail(), backbone.stem_channels, backbone.tail_channels)
    widths = {"res4": options.EMBEDDING.RES4, "res5": options.EMBEDDING.RES5}
    pixelwise = options.PIXELWISE
    embedding = PixelwiseEmbedding(features.channels, widths, pixelwise.NORMALISED, pixelwise.SCORE_NORM)
    return [features], {}, embedding


SEARCH_HEADS = {"norm_aware": _norm_aware_parts, "linear": _linear_parts, "pixelwise": _pixelwise_parts}
"""MODEL.SEARCH_HEAD.TYPE -> features, contexts and embedding of the second head."""


def _refuse_additions(options: CfgNode) -> None:
    if options.PARTS or options.CONTEXT.SCENE != "none" or options.CONTEXT.GROUP != "none":
        raise ValueError(
            f"MODEL.SEARCH_HEAD.TYPE {options.SEARCH_HEAD.TYPE} has neither context nor parts: set "
            "MODEL.CONTEXT.SCENE and MODEL.CONTEXT.GROUP to none and MODEL.PARTS to False"
        )


def _choice(option: str, chosen: str, choices: tuple[str, ...]) -> str:
    if chosen not in choices:
        raise ValueError(f"{option} {chosen!r} is not one of {', '.join(choices)}")
    return chosen


def _build_contexts(options: CfgNode, backbone: Backbone) -> dict[str, SceneContext | GroupContext]:
    context = options.CONTEXT
    if context.GROUP != "none" and options.DETECTION_HEAD.TYPE == "none":
        raise ValueError(
            "MODEL.CONTEXT.GROUP needs people, which MODEL.DETECTION_HEAD.TYPE none does not find: set one of them"
        )
    kinds = {
        "scene": (SceneContext, SCENE_EXTRACTORS, context.SCENE, backbone.stem_channels),
        "group": (GroupContext, GROUP_EXTRACTORS, context.GROUP, backbone.tail_channels),
    }
    return {
        name: kind(
            extractors[_choice(f"MODEL.CONTEXT.{name.upper()}", chosen, ("none", *extractors))](channels), channels
        )
        for name, (kind, extractors, chosen, channels) in kinds.items()
        if chosen != "none"
    }


def _roi_align(options: CfgNode) -> RoIAlign:
    return RoIAlign(options.ROI_ALIGN.SIZE, options.ROI_ALIGN.SAMPLING_RATIO, STRIDE)


def _sampler(head: CfgNode) -> RoISampler:
    return RoISampler(head.BATCH_SIZE, head.POSITIVE_FRACTION, head.FOREGROUND_IOU, head.BACKGROUND_IOU)


def _thresholds(head: CfgNode) -> Thresholds:
    return Thresholds(head.SCORE_THRESH, head.NMS_THRESH, head.MAX_DETECTIONS)
