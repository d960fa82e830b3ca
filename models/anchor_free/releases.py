"""Published weights of AlignPS and AlignPS+, in the files of mmdetection."""

from models.releases import Names, Release

_NAMES: Names = (
    (r"(backbone\.(?:conv1|bn1|layer[1-4])\..+)", r"\1"),
    (r"neck\.lateral_convs\.([012]\..+)", r"neck.laterals.\1"),
    (r"neck\.fpn_convs\.([012]\..+)", r"neck.outputs.\1"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"neck.coarser.0.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"neck.coarser.1.\1"),
    (r"bbox_head\.cls_convs\.([0-3])\.conv\.(.+)", r"head.cls_tower.\1.0.\2"),
    (r"bbox_head\.cls_convs\.([0-3])\.gn\.(.+)", r"head.cls_tower.\1.1.\2"),
    (r"bbox_head\.reg_convs\.([0-3])\.conv\.(.+)", r"head.box_tower.\1.0.\2"),
    (r"bbox_head\.reg_convs\.([0-3])\.gn\.(.+)", r"head.box_tower.\1.1.\2"),
    (r"bbox_head\.conv_cls\.(.+)", r"head.classifier.\1"),
    (r"bbox_head\.conv_reg\.(.+)", r"head.box.\1"),
    (r"bbox_head\.conv_centerness\.(.+)", r"head.centreness.\1"),
    (r"bbox_head\.scales\.0\.scale", "head.scale"),
    (r"bbox_head\.labeled_matching_layer\.lookup_table", "memory.lut"),
    (r"bbox_head\.unlabeled_matching_layer\.queue", "memory.cq"),
    (r"bbox_head\.unlabeled_matching_layer\.tail", "memory.header"),
)
_MARKS = ("neck.lateral_convs.", "bbox_head.conv_centerness.")
# Of boxes on P4 to P7, where no person is ever positive: they take part in no loss, and in no search.
_UNUSED = r"bbox_head\.scales\.[1-4]\.scale"

RELEASES = (
    Release(
        "AlignPS+ (2021)",
        "alignps_plus",
        marks=(*_MARKS, "backbone.layer2.0.conv2.conv_offset."),
        names=_NAMES,
        unused=_UNUSED,
    ),
    Release("AlignPS (2021)", "alignps", _MARKS, _NAMES, unused=_UNUSED),
)
"""The known releases; the first whose marks a file has is taken, so the one with more marks comes first."""
