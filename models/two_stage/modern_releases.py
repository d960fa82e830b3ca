"""Published weights of two-stage networks with a ConvNeXt."""

from models.releases import Names, Release

_STAGES = {"0": "stage1", "1": "stage2", "2": "stage3.0", "3": "stage3.1", "4": "stage4.0", "5": "stage4.1"}
"""A layer of torchvision's `features` in the stem -> its name here, where downsampling belongs to the next stage."""


def _stem(theirs: str) -> Names:
    return tuple((rf"{theirs}\.{number}\.(.+)", rf"stem.{stage}.\1") for number, stage in _STAGES.items())


_RPN: Names = (
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.head.conv.0.0.\1"),  # without 0.0. before torchvision 0.13
    (r"rpn\.head\.(cls_logits|bbox_pred)\.(weight|bias)", r"rpn.head.\1.\2"),
)
_FILTER = r"(?:roi_heads\.)?gfn\."
_SEQNEXT: Names = (
    *_stem(r"backbone\.body"),
    *_RPN,
    (r"roi_heads\.prop_head\.head\.([01]\..+)", r"detection_head.features.tail.stage5.\1"),
    (r"roi_heads\.faster_rcnn_predictor\.((?:cls_score|bbox_pred)\..+)", r"detection_head.predictor.\1"),
    (
        rf"(?:roi_heads\.(?:box|reid)|{_FILTER}query_reid)_head\.head\.([01]\..+)",
        r"search_head.features.0.tail.stage5.\1",
    ),
    (
        rf"(?:roi_heads\.embedding|{_FILTER}query_emb)_head\.projectors\.feat_(res[45]\..+)",
        r"search_head.embedding.projectors.\1",
    ),
    (r"roi_heads\.score_predictor\.cls_score\.(weight|bias)", r"search_head.embedding.classifier.\1"),
    (r"roi_heads\.score_predictor\.bbox_pred\.(weight|bias)", r"search_head.box_regressor.0.\1"),
    (rf"(?:roi_heads|{_FILTER[:-2]})\.reid_loss\.(lut|cq)", r"search_head.oim.\1"),
)

RELEASES = (
    Release(
        "SeqNeXt (2023)",
        "seqnext",
        marks=("roi_heads.prop_head.head.", "roi_heads.score_predictor."),
        names=_SEQNEXT,
        unused=rf"{_FILTER}(?:head|fuser)\..+",
    ),
)
"""The known releases; see `models.two_stage.releases`."""
