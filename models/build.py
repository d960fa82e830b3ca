"""From options to a network of the family that they name."""

from yacs.config import CfgNode

from models import anchor_free, two_stage
from models.base import Family, PersonSearchModel
from utils.errors import UserError

FAMILIES: dict[str, Family] = {"two_stage": two_stage.FAMILY, "anchor_free": anchor_free.FAMILY}
"""MODEL.FAMILY -> the family."""


def build_model(cfg: CfgNode, pretrained: bool = False) -> PersonSearchModel:
    """The network that the options describe, in train mode, on the CPU.

    Args:
        cfg: the options, see `defaults.py`.
        pretrained: load MODEL.BACKBONE.WEIGHTS, which may download them. Off, as at test time or before a checkpoint is
            loaded, the weights are random.

    Raises:
        UserError: an option has a value that does not exist, or that does not go with another one.
        FileNotFoundError: the backbone's weights are missing and cannot be downloaded.
    """
    name = cfg.MODEL.FAMILY
    if name not in FAMILIES:
        raise UserError(f"MODEL.FAMILY {name!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[name].build(cfg, pretrained)
