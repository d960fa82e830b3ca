"""The family of two-stage networks: OIM, NAE, NAE+, SeqNet, GLCNet, SeqNeXt and SEAS."""

from models.base import Family
from models.two_stage.build import build, build_fixed
from models.two_stage.releases import RELEASES

_HEADS = ("RPN.", "ROI_ALIGN.", "DETECTION_HEAD.", "SEARCH_HEAD.", "CONTEXT.", "PARTS", "PIXELWISE.", "EMBEDDING.")
FAMILY = Family(
    build=build,
    key_prefixes=("stem.", "detection_head.", "search_head."),
    releases=RELEASES,
    options=("FAMILY", "GALLERY_SCORE_THRESH", "BACKBONE.", *_HEADS, "FILTER.", "OIM.", "LOSS_WEIGHTS."),
    build_fixed=build_fixed,
)
