"""The family of anchor-free networks: AlignPS and AlignPS+."""

from models.anchor_free.build import build
from models.anchor_free.releases import RELEASES
from models.base import Family

_BACKBONE = ("NAME", "WEIGHTS", "PIXELS", "DROP_PATH", "FROZEN_STAGES", "FROZEN_BN_AFFINE", "FROZEN_BN_STATISTICS")
_OIM = ("NUM_IDS", "QUEUE_SIZE", "MOMENTUM", "SCALAR")
FAMILY = Family(
    build=build,
    key_prefixes=("neck.laterals.",),
    releases=RELEASES,
    options=(
        "FAMILY",
        "GALLERY_SCORE_THRESH",
        *(f"BACKBONE.{name}" for name in _BACKBONE),
        "ANCHOR_FREE.",
        *(f"OIM.{name}" for name in _OIM),
    ),
)
