"""SEAS's features of a person: strips of the crop at three granularities, and what the whole image adds to them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP, StochasticDepth, sigmoid_focal_loss

from models.roi import RoIs, Tail
from models.two_stage.boxes import Samples
from models.two_stage.context import SpatialAttention
from models.two_stage.embedding import RoIEmbedding
from models.two_stage.features import POOLS
from models.two_stage.scene_attention import SceneAttention

GRANULARITIES = 3
"""A map is embedded whole, in two and in three horizontal strips."""
REDUCTION, DROP_PATH = 16, 0.1


class StripAttention(nn.Module):
    """Weighs the channels of a map, then its positions (CBAM, Woo et al., ECCV 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = MLP(channels, [channels // REDUCTION, channels])
        self.positions = SpatialAttention(kernel=7, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.channels(x.mean((2, 3))) + self.channels(x.amax((2, 3)))
        x = x * weights.sigmoid()[:, :, None, None]
        return x * self.positions(x)


class StripProjector(nn.Module):
    """From a strip R x C x h x w to its part of the embedding, R x width."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.attention = StripAttention(channels)
        self.project = nn.Sequential(nn.Linear(channels, width, bias=False), nn.BatchNorm1d(width))
        self.drop = StochasticDepth(DROP_PATH, mode="row")

    def forward(self, strip: Tensor) -> Tensor:
        return self.drop(self.project(self.attention(strip).amax((2, 3))))


class MultiGranularity(nn.Module):
    """From maps of a crop, cut into one, two and three horizontal strips, to one vector of all strips.

    Each granularity has a third of a map's width, each of its strips an equal part of that; what does not divide goes
    to the first ones.

    Args:
        channels: of each map, by name.
        widths: of each in the vector.
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__()
        self.maps = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    nn.ModuleList(StripProjector(channels[name], part) for part in _shares(share, strips))
                    for strips, share in enumerate(_shares(width, GRANULARITIES), start=1)
                )
                for name, width in widths.items()
            }
        )
        self.width = sum(widths.values())

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """R x D float32 from maps R x channels[name] x h x w, h at least 3."""
        return torch.cat(
            [
                project(strip)
                for name, granularities in self.maps.items()
                for projectors in granularities
                for project, strip in zip(
                    projectors, maps[name].float().tensor_split(len(projectors), dim=2), strict=True
                )
            ],
            dim=1,
        )


class ModulatedFeatures(nn.Module):
    """The vector of a person's strips, alone (`strips`) and with what the whole image adds (`person`); and `res5`.

    The image's part is computed from the strips' vector without its gradient.

    Args:
        tail: a copy of the backbone's tail.
        tail_channels: of its output.
        strips: embeds the crop (`res4`) and the tail's output (`res5`).
        scene: gives what the image adds.
    """

    def __init__(self, tail: Tail, tail_channels: int, strips: MultiGranularity, scene: SceneAttention):
        super().__init__()
        self.tail, self.strips, self.scene = tail, strips, scene
        self.channels = {"res5": tail_channels, "strips": strips.width, "person": strips.width}

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        """Features by name, R x C."""
        res5 = self.tail.on_rois(rois)
        with torch.autocast(res5.device.type, enabled=False):
            strips = self.strips({"res4": rois.crops, "res5": res5})
        person = strips + self.scene(strips.detach(), rois.feature_map, rois.counts)
        return {"res5": POOLS["max"](res5), "strips": strips, "person": person}


class RunningNorm(nn.BatchNorm1d):
    """A batch norm that normalises by its running statistics in training, too, the batch counted first.

    The first batch's statistics take the place of the initial ones. Statistics have no gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                share = torch.where(self.num_batches_tracked == 0, 1.0, self.momentum)
                self.running_mean.lerp_(x.mean(0), share)
                self.running_var.lerp_(x.var(0), share)
                self.num_batches_tracked += 1
        # Clones: the next pass may update the statistics before this one's backward.
        return F.batch_norm(x, self.running_mean.clone(), self.running_var.clone(), eps=self.eps)


class ModulatedEmbedding(RoIEmbedding):
    """The unit vector of `person`, or of it and projections of contexts; the logit is the norm of `strips`, normalised.

    SEAS has no such contexts; each has a linear layer and a batch norm here.

    Args:
        width: length of `person`.
        channels: length of each context, by name.
        widths: dimensions of each in the embedding.
    """

    def __init__(self, width: int, channels: dict[str, int], widths: dict[str, int]):
        super().__init__()
        self.projectors = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(length, widths[name]), nn.BatchNorm1d(widths[name]))
                for name, length in channels.items()
            }
        )
        self.norm = RunningNorm(1, momentum=0.1, affine=False)
        self.widths = {"person": width} | {name: widths[name] for name in channels}
        self.num_features = sum(self.widths.values())

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D (unit vectors) and logits R from features name -> R x C."""
        with torch.autocast(features["person"].device.type, enabled=False):
            contexts = [project(features[name].float()) for name, project in self.projectors.items()]
            embeddings = F.normalize(torch.cat([features["person"], *contexts], dim=1))
            return embeddings, self.norm(features["strips"].norm(dim=1, keepdim=True))[:, 0]

    def classification_loss(self, logits: Tensor, samples: list[Samples]) -> Tensor:
        """Focal loss with gamma 2, without weights of classes."""
        is_person = torch.cat([s.is_person for s in samples]).to(logits.dtype)
        return sigmoid_focal_loss(logits, is_person, alpha=-1, gamma=2, reduction="mean")

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]
