"""SOLIDER's Swin transformers (Chen et al., CVPR 2023), pre-trained on images of people: their network and their files.

Their code is mmsegmentation's. From torchvision's Swin it differs in two ways: a semantic controller scales and shifts
the features behind each downsampling, and windows are shifted on maps of one window, too.
"""

import re
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMerging,
    ShiftedWindowAttention,
    SwinTransformerBlock,
    shifted_window_attention,
)

from utils.text import shortened

SEMANTIC_WEIGHT = 0.6
"""Share of semantics, against appearance, that SOLIDER's person search asks of the controller."""

_NAMES = {
    "features.0.0.": "patch_embed.projection.",
    "features.0.2.": "patch_embed.norm.",
    **{f"features.{2 * stage + 1}.": f"stages.{stage}.blocks." for stage in range(4)},
    **{f"features.{2 * stage + 2}.": f"stages.{stage}.downsample." for stage in range(3)},
    "norm4.": "norm2.",
    "norm5.": "norm3.",
    ".attn.": ".attn.w_msa.",
    ".mlp.0.": ".ffn.layers.0.0.",
    ".mlp.3.": ".ffn.layers.1.",
}
"""Parts of torchvision's names -> parts of SOLIDER's."""
_NOT_IN_FILES = r"^(?:norm|head)\.|\.reduction\.bias$|\.relative_position_index$"
_NOT_HERE = r"^norm[01]\.|^semantic_embed_[wb]\.3\.|\.relative_position_index$"


class ShiftedAttention(ShiftedWindowAttention):
    """Window attention that shifts its windows on maps no larger than one of them, too, where torchvision does not.

    The map is then rolled here, and cells that were not neighbours before do not attend to each other.
    """

    def forward(self, x: Tensor) -> Tensor:
        """From B x H x W x C to the same shape."""
        size, window, shift = x.shape[1:3], self.window_size, self.shift_size
        short = [axis for axis in (0, 1) if shift[axis] and size[axis] <= window[axis]]
        if not short:
            return super().forward(x)
        bottom, right = (window[axis] - size[axis] if axis in short else 0 for axis in (0, 1))
        steps, dims = [shift[axis] for axis in short], [axis + 1 for axis in short]
        x = F.pad(x, (0, 0, 0, right, 0, bottom)).roll([-step for step in steps], dims)
        bias = self.get_relative_position_bias()
        for axis in short:
            bias = bias - 100 * self._apart(axis, x.device)  # as torchvision masks; integers keep the dtype
        x = shifted_window_attention(
            x, self.qkv.weight, self.proj.weight, bias, window, self.num_heads, shift,
            qkv_bias=self.qkv.bias, proj_bias=self.proj.bias, training=self.training,
        )  # fmt: skip
        return x.roll(steps, dims)[:, : size[0], : size[1]]

    def _apart(self, axis: int, device: torch.device) -> Tensor:
        """bool, cells x cells of a rolled window: whether the two lay at opposite ends of the axis before."""
        place = torch.arange(self.window_size[axis], device=device).unsqueeze(1 - axis)
        wrapped = (place >= self.window_size[axis] - self.shift_size[axis]).expand(self.window_size).flatten()
        return wrapped[:, None] != wrapped


class BiasedMerging(PatchMerging):
    """Downsampling with a bias, which takes the semantic controller's shift."""

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm):
        super().__init__(dim, norm_layer)
        self.reduction = nn.Linear(4 * dim, 2 * dim)


CHANGES = {
    "block": partial(SwinTransformerBlock, attn_layer=ShiftedAttention),
    "downsample_layer": BiasedMerging,
}
"""Arguments of torchvision's Swin transformers that make them SOLIDER's."""


def torchvision_state(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The weights of a SOLIDER file as the state dict of a torchvision Swin, the semantic controller folded in.

    Args:
        state: the file's teacher, its keys with the prefix `backbone.` (others are the self-supervised head's, and
            left out), or the backbone's alone without.
        net: the network, with `CHANGES` and with the layers `norm4` and `norm5` for its two last maps.

    Raises:
        ValueError: keys are missing, or have no place in the network.
    """
    prefix = "backbone." if any(key.startswith("backbone.") for key in state) else ""
    state = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    names = {key: _name_in_files(key) for key in net.state_dict() if not re.search(_NOT_IN_FILES, key)}
    controller = [f"semantic_embed_{kind}.{i}.{part}" for kind in "wb" for i in range(3) for part in ("weight", "bias")]
    needed = [*names.values(), *controller]
    missing = [key for key in needed if key not in state]
    unknown = [key for key in state if key not in needed and not re.search(_NOT_HERE, key)]
    if missing or unknown:
        faults = {"missing": missing, "unknown": unknown}
        listed = [f"{len(keys)} {what}: {shortened(keys)}" for what, keys in faults.items() if keys]
        raise ValueError("it is no SOLIDER file of this size; keys " + "; ".join(listed))
    own = {key: state[name] for key, name in names.items()}
    for stage in range(3):
        merging = f"features.{2 * stage + 2}."
        for name in ("norm.weight", "norm.bias", "reduction.weight"):
            own[merging + name] = _channels_last(own[merging + name])
        scale, shift = (_controlled(state, f"semantic_embed_{kind}.{stage}.") for kind in "wb")
        own[f"{merging}reduction.weight"] = F.softplus(scale)[:, None] * own[f"{merging}reduction.weight"]
        own[f"{merging}reduction.bias"] = shift
    return own


def _name_in_files(key: str) -> str:
    for ours, theirs in _NAMES.items():
        key = key.replace(ours, theirs)
    return key


def _channels_last(merged: Tensor) -> Tensor:
    """The last axis, four cells of each channel by rows, in torchvision's order: channels of each cell, by columns."""
    return merged.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


def _controlled(state: dict[str, Tensor], prefix: str) -> Tensor:
    """The output of one of the semantic controller's linear layers."""
    shares = torch.tensor([SEMANTIC_WEIGHT, 1 - SEMANTIC_WEIGHT])
    return F.linear(shares, state[f"{prefix}weight"], state[f"{prefix}bias"])
