"""From options to an anchor-free network."""

from torch import nn
from yacs.config import CfgNode

from models.anchor_free.alignps import AlignPS
from models.anchor_free.detections import QUERY_CELLS, Detector
from models.anchor_free.head import DenseHead
from models.anchor_free.memory import FocalOIMLoss
from models.anchor_free.neck import AlignedAggregation
from models.backbones import BACKBONES, FreezePolicy, build_feature_maps
from models.deformable import deform_stages, stride_in_first_convolution
from models.preprocess import Preprocess
from utils.options import check_choices, check_rules


def build(cfg: CfgNode, pretrained: bool = False) -> AlignPS:
    """See `models.build.build_model`."""
    _check(cfg.MODEL, pretrained)
    options, body = cfg.MODEL.ANCHOR_FREE, cfg.MODEL.BACKBONE
    return AlignPS(
        preprocess=Preprocess(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, pixels=body.PIXELS),
        backbone=_build_backbone(cfg.MODEL, pretrained),
        neck=AlignedAggregation(BACKBONES[body.NAME].channels, options.WIDTH),
        head=DenseHead(options.WIDTH),
        memory=_build_memory(cfg.MODEL),
        detector=Detector(options.MIN_PROBABILITY, options.MAX_CANDIDATES, options.NMS_THRESH, options.MAX_DETECTIONS),
        min_score=cfg.MODEL.GALLERY_SCORE_THRESH,
        query=options.QUERY,
        triplet=options.TRIPLET,
        triplet_without_first=options.TRIPLET_WITHOUT_FIRST,
        freeze=FreezePolicy(body.FROZEN_STAGES, body.FROZEN_BN_AFFINE, body.FROZEN_BN_STATISTICS),
    )


def _build_backbone(options: CfgNode, pretrained: bool) -> nn.Module:
    body, changes = options.BACKBONE, options.ANCHOR_FREE
    backbone = build_feature_maps(body.NAME, body.WEIGHTS if pretrained else "none", body.DROP_PATH)
    if changes.STRIDE_IN_1X1:
        stride_in_first_convolution(backbone)
    if changes.DEFORMABLE:
        deform_stages(backbone)
    return backbone


def _build_memory(options: CfgNode) -> FocalOIMLoss:
    oim, own = options.OIM, options.ANCHOR_FREE
    return FocalOIMLoss(
        own.WIDTH,
        oim.NUM_IDS,
        oim.QUEUE_SIZE,
        oim.MOMENTUM,
        oim.SCALAR,
        queue_scalar=own.QUEUE_SCALAR,
        normalised_rows=own.NORMALISED_ROWS,
        queue_dims=own.QUEUE_DIMS,
    )


CHOICES = {"ANCHOR_FREE.QUERY": QUERY_CELLS}
"""Option of MODEL -> the values that exist."""


def _check(options: CfgNode, pretrained: bool) -> None:
    """Raise UserError for values that do not exist, or do not go together."""
    check_choices("MODEL", options, CHOICES)
    own, backbone = options.ANCHOR_FREE, options.BACKBONE.NAME
    from_torchvision = pretrained and options.BACKBONE.WEIGHTS == "imagenet"
    rules = {
        "MODEL.ANCHOR_FREE.WIDTH must be a multiple of 32, for its group norms": own.WIDTH > 0 and own.WIDTH % 32 == 0,
        f"MODEL.ANCHOR_FREE.QUEUE_DIMS must be 0 to {own.WIDTH}": 0 <= own.QUEUE_DIMS <= own.WIDTH,
        f"MODEL.ANCHOR_FREE.DEFORMABLE needs a ResNet, not {backbone}": (
            not own.DEFORMABLE or backbone.startswith("resnet")
        ),
        f"MODEL.ANCHOR_FREE.STRIDE_IN_1X1 needs resnet50 or resnet101, not {backbone}": (
            not own.STRIDE_IN_1X1 or backbone in ("resnet50", "resnet101")
        ),
        "MODEL.ANCHOR_FREE.STRIDE_IN_1X1 needs weights of Caffe, a file: those of MODEL.BACKBONE.WEIGHTS imagenet have "
        "the stride in their 3 x 3 convolutions": not (own.STRIDE_IN_1X1 and from_torchvision),
    }
    check_rules(rules)
