"""From options to a two-stage network."""

from yacs.config import CfgNode

from models.backbones import STRIDE, FreezePolicy, SplitBackbone, build_backbone
from models.image_memory import ImageMemory
from models.oim import MEANS
from models.preprocess import Preprocess
from models.roi import RoIAlign
from models.two_stage.build_search_head import (
    COMPANIONS,
    SEARCH_HEADS,
    WITH_CONTEXT,
    WITH_PARTS,
    build_search_head,
    crop_size,
    sampler,
    thresholds,
)
from models.two_stage.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS
from models.two_stage.detection_head import PREDICTORS, DetectionHead, PassThrough
from models.two_stage.features import CROP_SIZE, POOLS, TailFeatures
from models.two_stage.fixed import FixedPersonSearch
from models.two_stage.gallery_filter import COMPARISONS, QUERIES, SceneFilter
from models.two_stage.multi_granularity import GRANULARITIES
from models.two_stage.person_search import PersonSearch
from models.two_stage.pixelwise import SCORE_NORMS
from models.two_stage.rpn import BOX_LOSSES, ProposalNetwork
from models.two_stage.scene_attention import HEADS
from models.two_stage.search_head import BOX_DELTAS
from utils.options import check_choices, check_rules


def build(cfg: CfgNode, pretrained: bool = False) -> PersonSearch:
    """See `models.build.build_model`."""
    options, body = cfg.MODEL, cfg.MODEL.BACKBONE
    _check(cfg)
    backbone = build_backbone(body.NAME, body.WEIGHTS if pretrained else "none", body.DROP_PATH)
    backbone.tail.checkpointed = body.CHECKPOINT_TAILS
    # SCORE_NORM applies only where the pixel-wise head gives the score.
    own_score = options.DETECTION_HEAD.TYPE == "none" or options.SEARCH_HEAD.SCORE == "own"
    rpn, detection_head = _build_rpn(options.RPN, backbone), _build_detection_head(options, backbone)
    search_head = build_search_head(options, backbone)
    return PersonSearch(
        preprocess=Preprocess(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, pixels=body.PIXELS),
        stem=backbone.stem,
        rpn=rpn,
        detection_head=detection_head,
        search_head=search_head,
        gallery_filter=_build_filter(options.FILTER, backbone, search_head.oim.lut.shape[1]),
        loss_weights={f"loss_{name.lower()}": weight for name, weight in options.LOSS_WEIGHTS.items()},
        freeze=FreezePolicy(body.FROZEN_STAGES, body.FROZEN_BN_AFFINE, body.FROZEN_BN_STATISTICS),
        score_norm=options.PIXELWISE.SCORE_NORM if own_score and options.SEARCH_HEAD.TYPE == "pixelwise" else "none",
    )


def build_fixed(cfg: CfgNode, network: PersonSearch, people: int) -> FixedPersonSearch:
    """See `models.base.Family.build_fixed`. Raises UserError for parts that have no twin."""
    options, head, name = cfg.MODEL, cfg.MODEL.SEARCH_HEAD.TYPE, cfg.MODEL.BACKBONE.NAME
    scene, group, kind = options.CONTEXT.SCENE, options.CONTEXT.GROUP, options.FILTER.TYPE
    check_rules(
        {
            f"{part} cannot be exported: docs/export.md names what can": exported
            for part, exported in {
                "MODEL.DETECTION_HEAD.TYPE none": options.DETECTION_HEAD.TYPE != "none",
                f"MODEL.SEARCH_HEAD.TYPE {head}": head in WITH_PARTS,
                f"MODEL.CONTEXT.SCENE {scene}": scene != MIXING,
                f"MODEL.CONTEXT.GROUP {group}": group not in (MIXING, COMPANIONS),
                f"MODEL.FILTER.TYPE {kind}": kind == "none",
                f"MODEL.BACKBONE.NAME {name}": "swin" not in name,
            }.items()
        }
    )
    return FixedPersonSearch(network, min(people, options.DETECTION_HEAD.MAX_DETECTIONS, options.RPN.POST_NMS_TEST))


MIXING = "coattention"
"""The extractor whose result depends on the other images of a batch."""


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
        sampler=sampler(head),
        thresholds=thresholds(head),
        with_proposals=head.WITH_PROPOSALS,
    )


def _build_filter(options: CfgNode, backbone: SplitBackbone, width: int) -> SceneFilter | None:
    """The gallery filter for embeddings of a width, if there is one."""
    if options.TYPE == "none":
        return None
    remembers = options.POSITIVES or options.NEGATIVES
    return SceneFilter(
        tail=backbone.new_tail(),
        channels={"res4": backbone.stem_channels, "res5": backbone.tail_channels},
        width=width,
        grid=options.GRID,
        comparison=options.TYPE,
        queries=options.QUERIES,
        memory=ImageMemory(options.POSITIVES, options.NEGATIVES) if remembers else None,
    )


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
    "FILTER.TYPE": ("none", *COMPARISONS),
    "FILTER.QUERIES": QUERIES,
}
"""Option of MODEL -> the values that exist."""


def _check(cfg: CfgNode) -> None:
    """Raise UserError for values that do not exist, or do not go together."""
    options = cfg.MODEL
    check_choices("MODEL", options, CHOICES)
    head, size, group = options.SEARCH_HEAD.TYPE, options.SEARCH_HEAD.ROI_SIZE, options.CONTEXT.GROUP
    check_rules({f"MODEL.SEARCH_HEAD.ROI_SIZE must be [height, width], not {size}": len(size) == 2 and min(size) >= 0})
    height, width = crop_size(options)
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
        "MODEL.FILTER.TYPE needs INPUT.BATCH_SIZE_TRAIN of 2 or more: its batch norms see one vector an image": (
            options.FILTER.TYPE == "none" or cfg.INPUT.BATCH_SIZE_TRAIN >= 2
        ),
    }
    check_rules(rules)
