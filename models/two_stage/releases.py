"""Published weights of two-stage networks. A new release is one more entry in `RELEASES`."""

import re

from models.releases import Names, Release
from models.two_stage.modern_releases import RELEASES as MODERN

_PROJECTORS = "roi_heads.embedding_head.projectors."
_THEIRS, _OURS = re.escape(_PROJECTORS), "search_head.embedding.projectors."
_COMMON: Names = (
    (r"backbone\.(?:bb\.)?((?:conv1|bn1|layer[123])\..+)", r"stem.\1"),
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.head.conv.0.0.\1"),  # without 0.0. before torchvision 0.13
    (r"rpn\.head\.(cls_logits|bbox_pred)\.(weight|bias)", r"rpn.head.\1.\2"),
    (r"roi_heads\.box_predictor\.bbox_pred\.([01]\..+)", r"search_head.box_regressor.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"search_head.box_regressor.0.\1"),  # without batch norm
    (r"roi_heads\.embedding_head\.rescaler\.(.+)", r"search_head.embedding.rescaler.\1"),
    (r"roi_heads\.reid_loss\.(lut|cq)", r"search_head.oim.\1"),
)
_ONE_HEAD: Names = ((r"roi_heads\.box_head\.(layer4\..+)", r"search_head.features.0.tail.\1"),)
_TWO_HEADS: Names = (
    (r"roi_heads\.box_head\.(layer4\..+)", r"detection_head.features.tail.\1"),
    (r"roi_heads\.faster_rcnn_predictor\.((?:cls_score|bbox_pred)\..+)", r"detection_head.predictor.\1"),
    (r"roi_heads\.reid_head\.(layer4\..+)", r"search_head.features.0.tail.\1"),
)
_RES4_RES5: Names = ((rf"{_THEIRS}feat_(res[45])\.(.+)", rf"{_OURS}\1.\2"),)
_SCENE_2021: Names = (
    (rf"{_THEIRS}cxt_scenario\.(.+)", rf"{_OURS}scene.\1"),
    (r"(?:roi_heads\.)?cxt_feat_extractor_scenario\.(.+)", r"search_head.contexts.scene.extractor.\1"),
)
_PROJECTORS_2024: Names = tuple(
    (rf"{_THEIRS}{theirs}\.(.+)", rf"{_OURS}{ours}")
    for theirs, ours in (
        ("feat_res3", r"res4.\1"),  # this release counts ResNet's layers, not its stages
        ("feat_res4", r"res5.\1"),
        ("cxt_(scene|group)", r"\1.\2"),
        ("feat_granularity_1", r"part1_1.\1"),
        ("feat_granularity_([23])_horizon_([123])", r"part\1_\2.\3"),
    )
)
_CONTEXT_2024: Names = tuple(
    (rf"(?:roi_heads\.)?cxt_(scene|group)_extractor\.{theirs}\.(.+)", rf"search_head.contexts.\1.extractor.{ours}.\2")
    for theirs, ours in (
        ("convs", "convs"),
        ("convs_1x1", "branches.0"),
        ("convs_3x3", "branches.1"),
        ("convs_5x5", "branches.2"),
        (r"channel_attention\.fc", "attention.fc"),
    )
)
_STRIPES = r"search_head.features.1.stripe_tails.\1.layer4.\2"
_PARTS_2024: Names = ((r"(?:roi_heads\.)?mps\.block_granularity_([123])\.0\.1\.(.+)", _STRIPES),)

_PROJECTOR_WEIGHTS = rf"{_THEIRS}.+\.0\.weight"
_NAE_MARKS = ("roi_heads.box_head.layer4.", f"{_PROJECTORS}feat_res5.")
_NAE = _COMMON + _ONE_HEAD + _RES4_RES5
_NAE_UNUSED = r"roi_heads\.box_predictor\.cls_score\.(weight|bias)"

RELEASES = (
    Release(
        "GLCNet (2024)",
        "glcnet_2024",
        marks=("roi_heads.reid_head.", f"{_PROJECTORS}feat_res3."),
        names=_COMMON + _TWO_HEADS + _PROJECTORS_2024 + _CONTEXT_2024 + _PARTS_2024,
    ),
    Release(
        "GLCNet (2021)",
        "glcnet_2021",
        marks=("roi_heads.reid_head.", f"{_PROJECTORS}cxt_scenario."),
        names=_COMMON + _TWO_HEADS + _RES4_RES5 + _SCENE_2021,
    ),
    Release(
        "SeqNet (2021)",
        "seqnet",
        marks=("roi_heads.reid_head.layer4.", f"{_PROJECTORS}feat_res5."),
        names=_COMMON + _TWO_HEADS + _RES4_RES5,
    ),
    Release("NAE+ (2020)", "nae_plus", _NAE_MARKS, _NAE, {_PROJECTOR_WEIGHTS: 4}, _NAE_UNUSED),
    Release("NAE (2020)", "nae", _NAE_MARKS, _NAE, {_PROJECTOR_WEIGHTS: 2}, _NAE_UNUSED),
    *MODERN,
)
"""The known releases; the first whose marks a file has is taken, so those with more marks come first."""
