"""NAE+ (CVPR 2020): a norm-aware embedding of every position of a RoI, averaged with weights from its own norm."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.results import SearchResult
from models.two_stage.boxes import Samples
from models.two_stage.embedding import RoIEmbedding, projection

SCORE_NORMS = ("image", "batch", "none")
"""What the scores of RoIs are relative to, see `relative_scores`."""


class PixelwiseEmbedding(RoIEmbedding):
    """Projects both maps by a 1 x 1 convolution and batch norm, resizes res4's to res5's, and concatenates them.

    At each position the norm, through a batch norm, is a logit; its sigmoid is the attention by which the unit vectors
    of the positions are averaged.

    Args:
        channels: channels of `res4` and `res5`.
        widths: dimensions of each in the embedding.
        normalised: L2-normalise the embedding in training too. False as published: OIM sees vectors of norm below 1.
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int], normalised: bool):
        super().__init__()
        self.projectors = nn.ModuleDict(
            {
                name: projection(nn.Conv2d(channels[name], width, 1), nn.BatchNorm2d(width))
                for name, width in widths.items()
            }
        )
        self.rescaler = nn.BatchNorm2d(1)
        self.normalised = normalised
        self.num_features = sum(widths.values())

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D and logit maps R x h x w from maps name -> R x channels[name] x ..."""
        with torch.autocast(features["res5"].device.type, enabled=False):
            res4, res5 = (self.projectors[name](features[name].float()) for name in ("res4", "res5"))
            z = torch.cat([F.interpolate(res4, res5.shape[2:], mode="bilinear"), res5], dim=1)
            logits = self.rescaler(z.norm(dim=1, keepdim=True))
            pooled = (F.normalize(z) * logits.sigmoid()).mean((2, 3))
        # `SearchResult` promises unit vectors; in training the release gives OIM the average as it is.
        unit = self.normalised or not self.training
        return F.normalize(pooled) if unit else pooled, logits[:, 0]

    def classification_loss(self, logits: Tensor, samples: list[Samples]) -> Tensor:
        """Binary cross-entropy of every position's logit against how much of it the person covers, mean over all."""
        covered = torch.cat([_coverage(s, logits.shape[-1]) for s in samples])
        return F.binary_cross_entropy_with_logits(logits, covered)

    def scores(self, logits: Tensor) -> Tensor:
        """Mean attention of each RoI, R; see `relative_scores`."""
        return logits.sigmoid().mean((1, 2))


def relative_scores(results: list[SearchResult], score_norm: str) -> list[SearchResult]:
    """Divide the scores of NAE+ by the largest one of all RoIs, before thresholds and non-maximum suppression.

    Args:
        score_norm: "image": the largest of the image, which is what the release does, as it tests one image at a time;
            "batch": the largest of all `results`, as it would do with several; "none": not at all.
    """
    if score_norm == "none" or not results:
        return results
    compared = [result.scores for result in results]
    if score_norm == "batch":
        compared = [torch.cat(compared)] * len(results)
    return [
        replace(result, scores=result.scores / scores.amax()) if len(result.scores) else result
        for result, scores in zip(results, compared, strict=True)
    ]


def _coverage(samples: Samples, size: int) -> Tensor:
    """Which cells of a RoI its person covers, n x size x size in [0, 1]; 0 for background.

    The release's target: a mask of the RoI, rounded up to full pixels, 1 where its person's box is, resized bilinearly.
    The mask is a rectangle, so rows and columns are resized separately. Background RoIs are, unlike there, all 0.
    """
    horizontal, vertical = (_covered_span(samples.boxes, samples.matched, axis, size) for axis in (0, 1))
    return vertical[:, :, None] * horizontal[:, None, :] * samples.is_person[:, None, None]


def _covered_span(boxes: Tensor, people: Tensor, axis: int, size: int) -> Tensor:
    """Along one axis (0 is x), n x size: the boxes' pixels that lie in their person, resized linearly to `size`.

    As F.interpolate with align_corners=False (half-pixel centres), but each box has its own number of pixels.
    """
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
