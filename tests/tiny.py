"""A network and pictures small enough for tests."""

import torch
from torch import Tensor
from yacs.config import CfgNode

from defaults import load_cfg
from models import build_model
from models.person_search import PersonSearch

OPTIONS = {
    "DEVICE": "cpu",
    "INPUT.MIN_SIZE": 96,
    "INPUT.MAX_SIZE": 160,
    "INPUT.NUM_WORKERS": 0,
    "INPUT.BATCH_SIZE_TRAIN": 2,
    "MODEL.BACKBONE.NAME": "resnet18",
    "MODEL.BACKBONE.WEIGHTS": "none",
    "MODEL.RPN.ANCHOR_SIZES": [16, 32, 64],
    "MODEL.RPN.POST_NMS_TRAIN": 100,
    "MODEL.RPN.POST_NMS_TEST": 30,
    "MODEL.DETECTION_HEAD.BATCH_SIZE": 16,
    "MODEL.SEARCH_HEAD.BATCH_SIZE": 16,
    "MODEL.OIM.NUM_IDS": 10,
    "MODEL.OIM.QUEUE_SIZE": 8,
}


def tiny_cfg(**options) -> CfgNode:
    """Options of a tiny network; keyword names have __ for the dots."""
    values = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    return load_cfg(None, [word for pair in values.items() for word in pair])


def tiny_model(**options) -> PersonSearch:
    """A tiny network with the same random weights each time."""
    torch.manual_seed(1)
    return build_model(tiny_cfg(**options))


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A float image 3 x height x width in [0, 1] with coarse and fine structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    fine = torch.rand(3, height, width, generator=generator)
    return 0.7 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] + 0.3 * fine


def target(*boxes_and_labels: tuple[list[float], int]) -> dict[str, Tensor]:
    """A training target of ((x1, y1, x2, y2), label) pairs."""
    return {
        "boxes": torch.tensor([box for box, _ in boxes_and_labels], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label in boxes_and_labels], dtype=torch.int64),
    }
