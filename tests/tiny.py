"""A network, pictures, datasets and runs of programs small enough for tests."""

from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torchvision.models import ConvNeXt, SwinTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from yacs.config import CfgNode

from datasets.synthetic.build import build_synthetic
from datasets.synthetic.config import SyntheticConfig
from defaults import load_cfg
from engine import train as loop
from models import build_model
from models.backbone_specs import convnext, solider_swin, swin
from models.two_stage.person_search import PersonSearch
from tools.common import run_program

_STAGES = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 32, 1), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 2)]
_SWIN = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]}
_SWIN_V2 = {"window_size": [8, 8], "block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
BACKBONES = {
    "tiny_convnext": convnext(partial(ConvNeXt, _STAGES, stochastic_depth_prob=0.1, layer_scale=0.3), 16, 32, 64),
    "tiny_swin": swin(partial(SwinTransformer, **_SWIN, window_size=[7, 7]), 16, 32, 64),
    "tiny_swin_v2": swin(partial(SwinTransformer, **_SWIN, **_SWIN_V2), 16, 32, 64),
    "tiny_solider_swin": solider_swin(partial(SwinTransformer, **_SWIN, window_size=[7, 7]), 16, 32, 64),
}
"""Backbones of each kind for MODEL.BACKBONE.NAME, small enough for every test."""

ROOT = Path(__file__).resolve().parents[1]
CFG = str(ROOT / "configs" / "cuhk_sysu.yaml")

OPTIONS = {
    "DEVICE": "cpu",
    "INPUT.MIN_SIZE": 96,
    "INPUT.MAX_SIZE": 160,
    "INPUT.NUM_WORKERS": 0,
    "INPUT.BATCH_SIZE_TRAIN": 2,
    "MODEL.BACKBONE.NAME": "resnet18",
    "MODEL.BACKBONE.WEIGHTS": "none",
    "MODEL.ROI_ALIGN.SIZE": 4,
    "MODEL.RPN.ANCHOR_SIZES": [16, 32, 64],
    "MODEL.RPN.POST_NMS_TRAIN": 100,
    "MODEL.RPN.POST_NMS_TEST": 30,
    "MODEL.DETECTION_HEAD.BATCH_SIZE": 8,
    "MODEL.SEARCH_HEAD.BATCH_SIZE": 8,
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


def eager_model(**options) -> PersonSearch:
    """A tiny network in eval mode that takes many proposals for people, though it is untrained."""
    options = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.01, "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.01} | options
    model = tiny_model(**options).eval()
    with torch.no_grad():
        model.detection_head.predictor.cls_score.weight.mul_(3)
        model.search_head.embedding.rescaler.running_mean.fill_(0.1)
    return model


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


def draw(folder: Path, fmt: str) -> Path:
    """A synthetic dataset of a few small images in one of the three formats."""
    config = SyntheticConfig(
        format=fmt, width=160, height=96, train_images=8, gallery_images=10, train_identities=6, test_identities=4,
        cameras=2, queries=6, person_height=(0.4, 0.8),
    )  # fmt: skip
    build_synthetic(config, folder)
    return folder


SHORT = {
    "SOLVER.MAX_EPOCHS": 2,
    "SOLVER.MILESTONES": "[1]",
    "DISP_PERIOD": 2,
    "MODEL.BACKBONE.NAME": "mobilenet_v2",
    "MODEL.CONTEXT.SCENE": "none",
    "MODEL.CONTEXT.GROUP": "none",
    "MODEL.OIM.NUM_IDS": 0,
}
"""Options of a training of seconds."""


def words(data: Path, out: Path, name: str = "CUHK-SYSU", **options) -> list[str]:
    """Command-line options of a tiny network on `data`."""
    given = {name.replace("__", "."): value for name, value in options.items()}
    values = OPTIONS | SHORT | {"INPUT.DATASET": name, "INPUT.DATA_ROOT": data, "OUTPUT_DIR": out} | given
    return [str(word) for pair in values.items() for word in pair]


def call(program: ModuleType, *arguments) -> int:
    """The exit code of a program with these arguments."""
    return run_program(program.main, program.parse_args([str(argument) for argument in arguments]))


def interrupt_before_step(number: int, monkeypatch) -> None:
    """Have a training end as by Ctrl-C before its nth step (from 1), once."""
    plain, calls = loop.set_learning_rate, []

    def spoiled(*args):
        calls.append(None)
        if len(calls) == number:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(loop, "set_learning_rate", spoiled)
