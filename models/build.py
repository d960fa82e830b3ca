"""From options to a network of the family that they name."""

from yacs.config import CfgNode

from models import anchor_free, two_stage
from models.backbones import BACKBONES, NORM_SCOPES
from models.base import Family, PersonSearchModel
from models.preprocess import PIXEL_FORMATS
from utils.errors import UserError
from utils.options import check_choices, check_rules

FAMILIES: dict[str, Family] = {"two_stage": two_stage.FAMILY, "anchor_free": anchor_free.FAMILY}
"""MODEL.FAMILY -> the family."""

BACKBONE_CHOICES = {
    "NAME": BACKBONES,
    "PIXELS": PIXEL_FORMATS,
    "FROZEN_BN_AFFINE": NORM_SCOPES,
    "FROZEN_BN_STATISTICS": NORM_SCOPES,
}
"""Option of MODEL.BACKBONE -> the values that exist."""


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
    sides = "INPUT.MIN_SIZE, of the short side, must not be above INPUT.MAX_SIZE, of the long one"
    check_rules({sides: cfg.INPUT.MIN_SIZE <= cfg.INPUT.MAX_SIZE})
    _check_backbone(cfg.MODEL.BACKBONE, pretrained)
    return FAMILIES[name].build(cfg, pretrained)


def _check_backbone(options: CfgNode, pretrained: bool) -> None:
    """Raise UserError for values that do not exist, or that the backbone does not have."""
    check_choices("MODEL.BACKBONE", options, BACKBONE_CHOICES)
    name, spec = options.NAME, BACKBONES[options.NAME]
    rules = {
        f"MODEL.BACKBONE.{option} must be none: {name} has no batch norm": spec.batch_norm or scope == "none"
        for option, scope in options.items()
        if option.startswith("FROZEN_BN")
    }
    rules[f"MODEL.BACKBONE.DROP_PATH must be -1: {name} has no stochastic depth"] = (
        spec.stochastic_depth or options.DROP_PATH < 0
    )
    rules["MODEL.BACKBONE.PIXELS must be rgb, which MODEL.BACKBONE.WEIGHTS imagenet take"] = (
        options.PIXELS == "rgb" or options.WEIGHTS != "imagenet" or not pretrained
    )
    check_rules(rules)
