"""A family of networks in sixty lines, which the programs train, resume, test, demo, convert and load as any other."""

import json

import pytest
import torch
import torch.nn.functional as F
from tiny import CFG, call, interrupt_before_step, words
from torch import Tensor, nn
from training_process import assert_same

import demo
from datasets import build_dataset
from defaults import load_cfg
from engine.checkpoint import load_weights
from models import OIMLoss, build_model
from models.base import Family, PersonSearchModel
from models.build import FAMILIES
from models.preprocess import Preprocess
from models.results import SearchResult, Thresholds
from tools import convert_checkpoint
from tools import test as test_program
from tools import train as train_program

STRIDE = 16
THRESHOLDS = Thresholds(min_score=0.0, nms_iou=0.5, max_detections=5)


class Toy(PersonSearchModel):
    """Each cell of a map of stride 16 scores a person whose centre it holds, and gives the box and the embedding."""

    identity_memory = ("toy_oim.lut", "toy_oim.cq", "toy_oim.header")

    def __init__(self, preprocess, num_ids, queue_size):
        super().__init__(preprocess)
        self.toy_body = nn.Sequential(nn.Conv2d(3, 8, STRIDE, STRIDE), nn.BatchNorm2d(8), nn.ReLU())
        self.toy_head = nn.Conv2d(8, 13, 1)
        self.toy_oim = OIMLoss(8, num_ids, queue_size)

    def cells(self, tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits B x N, boxes B x N x 4 and unit vectors B x N x 8 of the N cells, row by row."""
        cells = self.toy_head(self.toy_body(tensors))
        height, width = cells.shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5).to(tensors) * STRIDE
        logits, sides, embeddings = cells.flatten(2).transpose(1, 2).float().split([1, 4, 8], dim=2)
        sides = STRIDE * sides.exp()
        boxes = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=2)
        return logits[..., 0], boxes, F.normalize(embeddings, dim=2)

    def cells_of(self, boxes: Tensor, width: int) -> Tensor:
        """The cell that holds the centre of each box, in an image of this padded width."""
        column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2 // STRIDE).long().unbind(1)
        return row * (width // STRIDE) + column

    def losses(self, batch, targets):
        logits, boxes, embeddings = self.cells(batch.tensors)
        cells = [self.cells_of(target["boxes"], batch.tensors.shape[3]) for target in targets]
        wanted = torch.zeros_like(logits)
        for index, chosen in enumerate(cells):
            wanted[index, chosen] = 1
        found = torch.cat([boxes[index, chosen] for index, chosen in enumerate(cells)])
        features = torch.cat([embeddings[index, chosen] for index, chosen in enumerate(cells)])
        truth, labels = (torch.cat([target[name] for target in targets]) for name in ("boxes", "labels"))
        return {
            "loss_score": F.binary_cross_entropy_with_logits(logits, wanted),
            "loss_box": (found - truth).abs().mean() / STRIDE if len(truth) else boxes.sum() * 0,
            "loss_identity": 0.1 * self.toy_oim(features, labels),
        }

    def search_batch(self, batch, boxes):
        logits, found, embeddings = self.cells(batch.tensors)
        found = batch.restore_boxes(list(found))
        resized = batch.resize_boxes(boxes)
        chosen = [self.cells_of(given, batch.tensors.shape[3]) for given in resized]
        return [
            SearchResult(found[i], logits[i].sigmoid(), embeddings[i], boxes[i], embeddings[i][chosen[i]], THRESHOLDS)
            for i in range(len(found))
        ]


def build_toy(cfg, pretrained=False):
    return Toy(Preprocess(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE), cfg.MODEL.OIM.NUM_IDS, cfg.MODEL.OIM.QUEUE_SIZE)


@pytest.fixture(autouse=True)
def toy_family(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", Family(build=build_toy, key_prefixes=("toy_",)))


def options(cuhk, out) -> list:
    given = {"MODEL__FAMILY": "toy", "CKPT_MINUTES": 1e-6, "CKPT_KEEP": 1, "SOLVER__MAX_EPOCHS": 3}
    return ["--cfg", CFG, *words(cuhk, out, **given)]


def test_every_program_takes_a_family_of_sixty_lines(cuhk, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call(train_program, *options(cuhk, whole)) == 0
    log = (whole / "log.txt").read_text()
    assert "loss_identity" in log and "epoch 3: mAP" in log

    interrupt_before_step(5, monkeypatch)
    assert call(train_program, *options(cuhk, broken)) == 130
    assert call(train_program, "--resume", *options(cuhk, broken)) == 0
    states = [torch.load(folder / "last.pth", weights_only=True) for folder in (whole, broken)]
    for state in states:
        del state["config"]
    assert_same(*states)
    assert states[0]["model"]["toy_oim.lut"].any()

    assert call(test_program, *options(cuhk, whole), "--cbgm", "--gt") == 0
    metrics = json.loads((whole / "test" / "metrics.json").read_text())
    assert [row["boxes"] for row in metrics["search"]] == ["detected", "detected", "ground truth"]
    assert metrics["search"][2]["mAP"] > 0

    small, config = tmp_path / "small.pth", tmp_path / "small.yaml"
    assert call(convert_checkpoint, whole / "best.pth", small, "--strip", "--save-config", config) == 0
    model = build_model(load_cfg(config))
    assert load_weights(model, small) == list(Toy.identity_memory)
    for name, value in torch.load(small, weights_only=True)["model"].items():
        assert torch.equal(value, model.state_dict()[name]), name

    query = build_dataset("CUHK-SYSU", cuhk, "query").annotations[0]
    picture = ["--query", query["img_path"], "--box", *query["boxes"][0], "--gallery", cuhk / "Image" / "SSM"]
    assert call(demo, "--cfg", config, "--ckpt", small, *picture, "--out", tmp_path / "demo") == 0
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["ranked"] and (tmp_path / "demo" / "overview.jpg").is_file()
