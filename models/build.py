"""From options to the network: the only place where the models read a config."""

from torchvision.models.detection.transform import GeneralizedRCNNTransform
from yacs.config import CfgNode

from models.backbones import STRIDE, Backbone, FreezePolicy, build_backbone
from models.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS, GroupContext, SceneContext
from models.detection_head import DetectionHead
from models.embedding import NormAwareEmbedding
from models.features import GlobalFeatures
from models.oim import OIMLoss
from models.person_search import PersonSearch
from models.postprocess import Thresholds
from models.roi import RoIAlign, RoISampler
from models.rpn import ProposalNetwork, anchors_and_head
from models.search_head import SearchHead

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


def _build_detection_head(options: CfgNode, backbone: Backbone) -> DetectionHead:
    head = options.DETECTION_HEAD
    return DetectionHead(_roi_align(options), _global_features(backbone), _sampler(head), _thresholds(head))


def _build_search_head(options: CfgNode, backbone: Backbone) -> SearchHead:
    features = [_global_features(backbone)]
    contexts = _build_contexts(options.CONTEXT, backbone)
    channels = {name: n for part in features for name, n in part.channels.items()}
    channels |= {name: context.channels for name, context in contexts.items()}
    embedding = NormAwareEmbedding(channels, {name.lower(): width for name, width in options.EMBEDDING.items()})
    oim = options.OIM
    return SearchHead(
        roi_align=_roi_align(options),
        features=features,
        contexts=contexts,
        embedding=embedding,
        oim=OIMLoss(embedding.num_features, oim.NUM_IDS, oim.QUEUE_SIZE, oim.MOMENTUM, oim.SCALAR),
        sampler=_sampler(options.SEARCH_HEAD),
        thresholds=_thresholds(options.SEARCH_HEAD),
        group_labelled_only=options.CONTEXT.GROUP_LABELLED_ONLY,
    )


def _build_contexts(options: CfgNode, backbone: Backbone) -> dict[str, SceneContext | GroupContext]:
    kinds = {
        "scene": (SceneContext, SCENE_EXTRACTORS, options.SCENE, backbone.stem_channels),
        "group": (GroupContext, GROUP_EXTRACTORS, options.GROUP, backbone.tail_channels),
    }
    contexts = {}
    for name, (kind, extractors, chosen, channels) in kinds.items():
        if chosen == "none":
            continue
        if chosen not in extractors:
            raise ValueError(f"MODEL.CONTEXT.{name.upper()} {chosen!r} is not one of none, {', '.join(extractors)}")
        contexts[name] = kind(extractors[chosen](channels), channels)
    return contexts


def _roi_align(options: CfgNode) -> RoIAlign:
    return RoIAlign(options.ROI_ALIGN.SIZE, options.ROI_ALIGN.SAMPLING_RATIO, STRIDE)


def _global_features(backbone: Backbone) -> GlobalFeatures:
    return GlobalFeatures(backbone.new_tail(), backbone.stem_channels, backbone.tail_channels)


def _sampler(head: CfgNode) -> RoISampler:
    return RoISampler(head.BATCH_SIZE, head.POSITIVE_FRACTION, head.FOREGROUND_IOU, head.BACKGROUND_IOU)


def _thresholds(head: CfgNode) -> Thresholds:
    return Thresholds(head.SCORE_THRESH, head.NMS_THRESH, head.MAX_DETECTIONS)
