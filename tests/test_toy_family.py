"""A family of networks in sixty lines, which the programs train, resume, test, demo, convert and load as any other."""

import pytest
import torch
import torch.nn.functional as F
from programs import walk
from tiny import CFG, words
from torch import Tensor, nn

from models import OIMLoss
from models.base import Family, PersonSearchModel
from models.build import FAMILIES
from models.preprocess import Preprocess
from models.results import SearchResult, Thresholds

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

    @property
    def embedding_width(self):
        return self.toy_oim.lut.shape[1]

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
    run = walk(options, cuhk, tmp_path, monkeypatch)
    log = (run / "log.txt").read_text()
    assert "loss_identity" in log and "epoch 3: mAP" in log
    assert torch.load(run / "last.pth", weights_only=True)["model"]["toy_oim.lut"].any()
