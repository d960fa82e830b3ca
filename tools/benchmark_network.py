"""Networks and images of a defined load: random weights whose activations stay in range, and drawn people."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from yacs.config import CfgNode

from defaults import load_cfg
from engine.trainer import to_device
from models import build_model
from models.base import PersonSearchModel
from tools.benchmark_cases import Case
from utils.labels import UNLABELLED

# Random weights find nobody or hundreds. All proposals qualify, and the best ten people go to the second head.
LOAD = (
    ("MODEL.DETECTION_HEAD.SCORE_THRESH", "-1.0"),
    ("MODEL.DETECTION_HEAD.MAX_DETECTIONS", "10"),
    ("MODEL.SEARCH_HEAD.SCORE_THRESH", "-1.0"),
    ("MODEL.OIM.NUM_IDS", "500"),  # near PRW's 482
)
PEOPLE = 10
"""People drawn into a training image."""

SETTLING_SIZE = 192
"""Short side of the images that batch norm takes its statistics from, pixels."""
SETTLING_IMAGES = 2

_GRAIN = 32
"""Pixels between the support points of a drawn image."""
_NOISE = 0.05
_HEIGHTS = (0.2, 0.6)
"""Smallest and largest height of a drawn person, shares of the image's."""
_ASPECT = 0.4
"""Width of a drawn person over its height."""


def options_of(case: Case) -> CfgNode:
    """The options of a case: its images keep their size, `LOAD`, then the case's own.

    Raises:
        KeyError, ValueError, FileNotFoundError: as `defaults.load_cfg`.
    """
    sides = (("INPUT.MIN_SIZE", str(min(case.image_size))), ("INPUT.MAX_SIZE", str(max(case.image_size))))
    words = [word for pair in (*sides, *LOAD) for word in pair]
    return load_cfg(case.cfg, [*words, *case.opts])


def drawn_images(count: int, size: tuple[int, int]) -> list[Tensor]:
    """Images uint8 3 x H x W with coarse colours and fine noise, the same ones each time."""
    height, width = size
    generator = torch.Generator().manual_seed(1)
    images = []
    for _ in range(count):
        coarse = torch.rand(1, 3, height // _GRAIN + 2, width // _GRAIN + 2, generator=generator)
        smooth = F.interpolate(coarse, size, mode="bilinear")[0]
        noise = _NOISE * torch.randn(3, height, width, generator=generator)
        images.append(((smooth + noise).clamp(0, 1) * 255).to(torch.uint8))
    return images


def drawn_targets(count: int, size: tuple[int, int], identities: int) -> list[dict[str, Tensor]]:
    """Training targets of `count` images of height and width `size`, PEOPLE standing people each.

    Identities are 1 ... `identities`, in turn; without any the people are unlabelled.
    """
    generator = torch.Generator().manual_seed(2)
    targets = []
    for index in range(count):
        low, high = _HEIGHTS
        heights = (low + (high - low) * torch.rand(PEOPLE, generator=generator)) * min(size)
        widths = _ASPECT * heights
        left = torch.rand(PEOPLE, generator=generator) * (size[1] - widths)
        top = torch.rand(PEOPLE, generator=generator) * (size[0] - heights)
        people = torch.arange(index * PEOPLE, (index + 1) * PEOPLE)
        labels = people % identities + 1 if identities else torch.full_like(people, UNLABELLED)
        targets.append({"boxes": torch.stack([left, top, left + widths, top + heights], dim=1), "labels": labels})
    return targets


def new_network(cfg: CfgNode, device: torch.device) -> PersonSearchModel:
    """The network that the options describe, in eval mode, with the same random weights each time.

    Its batch norms have the statistics of drawn images, so that activations neither grow nor vanish from layer to
    layer: numbers that are not finite, or denormal, would be timed instead of the network.
    """
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    _settle(model, cfg.MODEL.OIM.NUM_IDS)
    return model.to(device).eval()


@torch.no_grad()
def _settle(model: PersonSearchModel, identities: int) -> None:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    side = (SETTLING_SIZE, 2 * SETTLING_SIZE)
    own_sizes = model.preprocess.min_size, model.preprocess.max_size
    model.preprocess.min_size, model.preprocess.max_size = side
    model.train()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this one batch, whatever was before
    images, targets = drawn_images(SETTLING_IMAGES, side), drawn_targets(SETTLING_IMAGES, side, identities)
    model(*to_device(images, targets, torch.device("cpu")))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.preprocess.min_size, model.preprocess.max_size = own_sizes
