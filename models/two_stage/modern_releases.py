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
_SEQNEXT: Names = (
    *_stem(r"backbone\.body"),
    *_RPN,
    (r"roi_heads\.prop_head\.head\.([01]\..+)", r"detection_head.features.tail.stage5.\1"),
    (r"roi_heads\.faster_rcnn_predictor\.((?:cls_score|bbox_pred)\..+)", r"detection_head.predictor.\1"),
    (r"roi_heads\.(?:box|reid)_head\.head\.([01]\..+)", r"search_head.features.0.tail.stage5.\1"),
    (r"roi_heads\.embedding_head\.projectors\.feat_(res[45]\..+)", r"search_head.embedding.projectors.\1"),
    (r"roi_heads\.score_predictor\.cls_score\.(weight|bias)", r"search_head.embedding.classifier.\1"),
    (r"roi_heads\.score_predictor\.bbox_pred\.(weight|bias)", r"search_head.box_regressor.0.\1"),
    (r"roi_heads\.reid_loss\.(lut|cq)", r"search_head.oim.\1"),
)
_FILTER = r"(?:roi_heads\.)?gfn\."
_SEQNEXT_GFN: Names = (
    *_SEQNEXT,
    (rf"{_FILTER}query_reid_head\.head\.([01]\..+)", r"search_head.features.0.tail.stage5.\1"),
    (rf"{_FILTER}query_emb_head\.projectors\.feat_(res[45]\..+)", r"search_head.embedding.projectors.\1"),
    (rf"{_FILTER}reid_loss\.(lut|cq)", r"search_head.oim.\1"),
    (rf"{_FILTER}head\.image_reid_head\.head\.([01]\..+)", r"gallery_filter.tail.stage5.\1"),
    (rf"{_FILTER}head\.image_emb_head\.projectors\.feat_(res[45]\..+)", r"gallery_filter.projectors.\1"),
    (rf"{_FILTER}fuser\.norm\.norm\.(.+)", r"gallery_filter.comparison.norm.\1"),
)

_SCENE, _OUR_SCENE = r"reid_roi_heads\.denoiser\.", "search_head.features.0.scene"
_STRIP = r"reid_roi_heads\.embedder\.encoders\.{}\.branches\.(\d)\.strip_projectors\.(\d)\."
_STRIP_LAYERS = {
    r"cbam\.channel_attention\.body\.fc1": "attention.channels.0",
    r"cbam\.channel_attention\.body\.fc2": "attention.channels.3",
    r"cbam\.spatial_attention\.body": "attention.positions.conv",
    "linear": "project.0",
    "norm": "project.1",
}
_SCENE_LAYERS = {
    "norm": "token_norm",
    r"decoder\.norm1": "before.norm",
    r"decoder\.ffn1\.fc1": "before.ffn.0",
    r"decoder\.ffn1\.fc2": "before.ffn.3",
    r"decoder\.norm2": "query_norm",
    r"decoder\.cross_attn\.qry_proj": "query",
    r"decoder\.cross_attn\.key_proj": "key",
    r"decoder\.cross_attn\.val_proj": "value",
    r"decoder\.cross_attn\.out_proj": "out",
    r"decoder\.norm3": "after.norm",
    r"decoder\.ffn2\.fc1": "after.ffn.0",
    r"decoder\.ffn2\.fc2": "after.ffn.3",
}
_SEAS: Names = (
    *_stem(r"backbone\.features"),
    *_RPN,
    *(
        (rf"{theirs}\.features\.{number}\.(.+)", rf"{ours}.tail.stage5.{place}.\1")
        for theirs, ours in (
            (r"detection_roi_heads\.box_head", "detection_head.features"),
            (r"reid_roi_heads\.enhancer\.body", "search_head.features.0"),
        )
        for number, place in ((6, 0), (7, 1))
    ),
    (r"detection_roi_heads\.box_predictor\.classifier\.(.+)", r"detection_head.predictor.cls_score.\1"),
    (r"detection_roi_heads\.box_predictor\.regressor\.fc\.(.+)", r"detection_head.predictor.bbox_pred.0.\1"),
    (r"detection_roi_heads\.box_predictor\.regressor\.bn\.(.+)", r"detection_head.predictor.bbox_pred.1.\1"),
    *(
        (rf"{_STRIP.format(encoder)}{theirs}\.(.+)", rf"search_head.features.0.strips.maps.{name}.\1.\2.{ours}.\3")
        for encoder, name in ((0, "res4"), (1, "res5"))
        for theirs, ours in _STRIP_LAYERS.items()
    ),
    *(
        (rf"reid_roi_heads\.extractor\.body\.layer{layer}\.(.+)", rf"{_OUR_SCENE}.extractor.{layer - 1}.\1")
        for layer in (1, 2, 3)
    ),
    (rf"{_SCENE}embedder\.pos_row", f"{_OUR_SCENE}.rows"),
    (rf"{_SCENE}embedder\.pos_col", f"{_OUR_SCENE}.columns"),
    *((rf"{_SCENE}{theirs}\.(.+)", rf"{_OUR_SCENE}.{ours}.\1") for theirs, ours in _SCENE_LAYERS.items()),
    (r"reid_roi_heads\.bnr_loss\.mapping\.(mean|var)", r"search_head.embedding.norm.running_\1"),
    (r"reid_roi_heads\.reid_loss\.(lut|cq)", r"search_head.oim.\1"),
)

RELEASES = (
    Release(
        "SEAS (2024)",
        "seas",
        marks=("detection_roi_heads.box_head.", "reid_roi_heads.denoiser."),
        names=_SEAS,
        unused=r".+\.drop_path\.keep_prob",
    ),
    Release(
        "SeqNeXt with its gallery filter (GFN, 2023)",
        "seqnext_gfn",
        marks=("roi_heads.prop_head.head.", "gfn.head.image_reid_head."),
        names=_SEQNEXT_GFN,
    ),
    Release(
        "SeqNeXt (2023)",
        "seqnext",
        marks=("roi_heads.prop_head.head.", "roi_heads.score_predictor."),
        names=_SEQNEXT,
    ),
)
"""The known releases; see `models.two_stage.releases`."""
