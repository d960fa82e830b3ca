"""NAE+: the norm-aware embedding of every position of a RoI, weighted by how much of a person it shows (CVPR 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.embedding import init_projection
from models.roi import Samples

SCORE_NORMS = ("image", "batch", "none")


class PixelwiseEmbedding(nn.Module):
    """Each feature map is projected by a 1 x 1 convolution and batch norm; res4's is resized to res5's, then joined.

    At each position the norm, through a batch norm, is a logit; its sigmoid is the attention by which the unit vectors
    of the positions are averaged.

    Args:
        channels: channels of `res4` and `res5`.
        widths: dimensions that each gets in the embedding.
        normalised: L2-normalise the embedding; as published it is not in training: the OIM loss gets norms below 1.
        score_norm: the mean attention of a RoI is divided by the largest of its "image" (default), of the "batch"
            (published: a result then depends on its neighbours), or by nothing ("none").
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int], normalised: bool, score_norm: str):
        super().__init__()
        if score_norm not in SCORE_NORMS:
            raise ValueError(f"MODEL.PIXELWISE.SCORE_NORM {score_norm!r} is not one of {', '.join(SCORE_NORMS)}")
        self.projectors = nn.ModuleDict(
            {
                name: init_projection(
                    nn.Sequential(nn.Conv2d(channels[name], widths[name], 1), nn.BatchNorm2d(widths[name]))
                )
                for name in channels
            }
        )
        self.rescaler = nn.BatchNorm2d(1)
        self.normalised, self.score_norm = normalised, score_norm
        self.num_features = sum(widths[name] for name in channels)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D and logit maps R x h x w, in float32, from maps name -> R x channels[name] x ..."""
        with torch.autocast(features["res5"].device.type, enabled=False):
            maps = [project(features[name].float()) for name, project in self.projectors.items()]
            size = features["res5"].shape[2:]
            maps = [
                F.interpolate(m, size, mode="bilinear", align_corners=False) if m.shape[2:] != size else m for m in maps
            ]
            z = torch.cat(maps, dim=1)
            logits = self.rescaler(z.norm(dim=1, keepdim=True))
            pooled = (F.normalize(z) * logits.sigmoid()).mean((2, 3))
        # At test a factor on the query changes no ranking, and gallery embeddings are unit vectors times the score.
        unit = self.normalised or not self.training
        return F.normalize(pooled) if unit else pooled, logits[:, 0]

    @staticmethod
    def classification_loss(logits: Tensor, samples: list[Samples]) -> Tensor:
        """Binary cross-entropy of every position's logit against how much of it the person covers, mean over all."""
        covered = torch.cat([_coverage(s, logits.shape[-1]) for s in samples])
        return F.binary_cross_entropy_with_logits(logits, covered)

    def scores(self, logits: Tensor, counts: list[int]) -> list[Tensor]:
        """Mean attention of each RoI, normalised as `score_norm` says; per image n_i."""
        means = logits.sigmoid().mean((1, 2))
        if self.score_norm == "batch" and len(means):
            means = means / means.max()
        per_image = list(means.split(counts))
        if self.score_norm == "image":
            per_image = [scores / scores.max() if len(scores) else scores for scores in per_image]
        return per_image


def _coverage(samples: Samples, size: int) -> Tensor:
    """Which cells of a RoI its person covers, n x size x size in [0, 1]; 0 for background.

    The release's target: a mask of the RoI's whole pixels, 1 where its person's box is, resized bilinearly. The mask
    is a rectangle, so its rows and columns are resized apart. Unlike there, background RoIs are paired with nobody.
    """
    horizontal, vertical = (_covered_span(samples.boxes, samples.matched, axis, size) for axis in (0, 1))
    return vertical[:, :, None] * horizontal[:, None, :] * samples.is_person[:, None, None]


def _covered_span(boxes: Tensor, people: Tensor, axis: int, size: int) -> Tensor:
    """Along one axis (0 is x), n x size: the boxes' pixels that lie in their person, resized linearly to `size`."""
    low, high = boxes[:, axis], boxes[:, axis + 2]
    pixels = (high - low).ceil().clamp(min=1)
    first = (people[:, axis].maximum(low) - low).floor()
    last = (people[:, axis + 2].minimum(high) - low).ceil()
    centres = torch.arange(size, device=boxes.device) + 0.5
    position = (centres * (pixels / size)[:, None] - 0.5).clamp(min=0)
    left = position.floor()
    right = (left + 1).minimum(pixels[:, None] - 1)
    inside = [((k >= first[:, None]) & (k <= last[:, None])).to(boxes.dtype) for k in (left, right)]
    return torch.lerp(*inside, position - left)
