"""Cross-attention of people to their whole image (SEAS's foreground modulation network)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP
from torchvision.ops.misc import Conv2dNormActivation

from models.two_stage.context import HIDDEN
from models.two_stage.features import max_grid

CHANNELS, GRID, HEADS, FFN = 2048, 7, 8, 2048
"""Length of a token, tokens along each axis of an image, attention heads, and hidden width, as released."""


class SceneAttention(nn.Module):
    """What each person's vector takes from the tokens of the image, to be added to it.

    Three convolutions on the map, max-pooled to a grid, with learned positions and a layer norm, give 49 tokens an
    image. A person's vector x becomes x + FFN(BN(x)), then the attention of its layer norm to these tokens, which takes
    its place, and again x + FFN(BN(x)).

    Args:
        channels: of the map.
        width: D, length of a person's vector, a multiple of 8.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        sizes = (channels, HIDDEN, HIDDEN, CHANNELS)
        self.extractor = nn.Sequential(*map(Conv2dNormActivation, sizes[:-1], sizes[1:]))
        self.rows = nn.Parameter(torch.randn(GRID, 1, CHANNELS // 2))
        self.columns = nn.Parameter(torch.randn(1, GRID, CHANNELS // 2))
        self.token_norm = nn.LayerNorm(CHANNELS)
        self.before, self.after = (_Residual(width) for _ in range(2))
        self.query_norm, self.query = nn.LayerNorm(width), nn.Linear(width, width)
        self.key, self.value = (nn.Linear(CHANNELS, width) for _ in range(2))
        self.out = nn.Linear(width, width)

    def forward(self, vectors: Tensor, feature_map: Tensor, counts: list[int]) -> Tensor:
        """R x D float32 from the people's vectors R x D.

        Args:
            vectors: those of all images, one image after another.
            feature_map: B x C x h x w.
            counts: people per image, B.
        """
        maps = self.extractor(feature_map)
        with torch.autocast(maps.device.type, enabled=False):
            tokens = self._tokens(maps.float())
            x = self.before(vectors.float())
            queries = self.query(self.query_norm(x)).split(counts)
            attended = [_attend(*parts) for parts in zip(queries, self.key(tokens), self.value(tokens), strict=True)]
            return self.after(self.out(torch.cat(attended)))

    def _tokens(self, maps: Tensor) -> Tensor:
        """B x 49 x C, row by row."""
        rows, columns = (position.expand(GRID, GRID, -1) for position in (self.rows, self.columns))
        positions = torch.cat([rows, columns], dim=-1)
        return self.token_norm((max_grid(maps, GRID).permute(0, 2, 3, 1) + positions).flatten(1, 2))


class _Residual(nn.Module):
    """x + FFN(BN(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.ffn = nn.BatchNorm1d(width), MLP(width, [FFN, width])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.norm(x))


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The attention of queries n x D to keys and values m x D, in heads, n x D."""
    q, k, v = (x.unflatten(1, (HEADS, -1)).transpose(0, 1) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
