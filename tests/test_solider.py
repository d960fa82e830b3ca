"""SOLIDER's Swin transformers: their files in torchvision's networks, against a plain twin of their code."""

from argparse import Namespace
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones import build_backbone
from utils.errors import UserError

WIDTH, DEPTH, HEADS, WINDOW = 8, 2, (1, 2, 2, 4), 7
State = dict[str, Tensor]


def random_state() -> State:
    """Weights of `tiny_solider_swin` as SOLIDER's files hold them, without the prefix."""
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.projection": (WIDTH, 3, 4, 4), "patch_embed.norm": (WIDTH,)}
    for i in range(4):
        width = WIDTH * 2**i
        for block in (f"stages.{i}.blocks.{j}." for j in range(DEPTH)):
            shapes |= {f"{block}norm1": (width,), f"{block}norm2": (width,)}
            shapes |= {f"{block}attn.w_msa.qkv": (3 * width, width), f"{block}attn.w_msa.proj": (width, width)}
            shapes |= {f"{block}ffn.layers.0.0": (4 * width, width), f"{block}ffn.layers.1": (width, 4 * width)}
        shapes |= {f"norm{i}": (width,)}
        shapes |= {f"semantic_embed_{kind}.{i}": (2 * width if i < 3 else width, 2) for kind in "wb"}
    shapes |= {f"stages.{i}.downsample.norm": (4 * WIDTH * 2**i,) for i in range(3)}
    biased = {f"{name}.bias": (shape[0],) for name, shape in shapes.items()}
    shapes |= {f"stages.{i}.downsample.reduction": (2 * WIDTH * 2**i, 4 * WIDTH * 2**i) for i in range(3)}
    shapes = biased | {f"{name}.weight": shape for name, shape in shapes.items()}
    for i, heads in enumerate(HEADS):
        tables = [f"stages.{i}.blocks.{j}.attn.w_msa.relative_position_bias_table" for j in range(DEPTH)]
        shapes |= dict.fromkeys(tables, ((2 * WINDOW - 1) ** 2, heads))
    return {name: torch.randn(shape) / prod(shape[1:]) ** 0.5 for name, shape in shapes.items()}


def file_of(state: State) -> dict:
    """The content of a file as training writes it: the teacher is one entry, its head beside its backbone."""
    teacher = {f"backbone.{key}": value for key, value in state.items()}
    index = {"backbone.stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    head = {"head.last_layer.weight_g": torch.ones(3, 1)}
    return {"teacher": teacher | index | head, "student": {}, "epoch": 1, "args": Namespace(lr=0.1)}


# ---------------------------------------------------------------- the twin
def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(x: Tensor, state: State, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def attention(x: Tensor, state: State, name: str, heads: int, shift: int) -> Tensor:
    """Of all cells of a padded map H x W x C at once, most pairs of which are masked."""
    height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
    rows, columns = (place.flatten() for place in torch.meshgrid(*map(torch.arange, x.shape[:2]), indexing="ij"))
    allowed, position = torch.tensor(True), []
    for place, length in ((rows, x.shape[0]), (columns, x.shape[1])):
        rolled = (place - shift) % length
        wrapped, window = place < shift, rolled // WINDOW
        allowed = allowed & (window[:, None] == window) & (wrapped[:, None] == wrapped)
        position.append((rolled[:, None] - rolled).clamp(1 - WINDOW, WINDOW - 1) + WINDOW - 1)
    table = state[f"{name}.relative_position_bias_table"]
    bias = table[position[0] * (2 * WINDOW - 1) + position[1]].permute(2, 0, 1)
    q, k, v = linear(x.flatten(0, 1), state, f"{name}.qkv").unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5 + bias
    mixed = scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v
    out = linear(mixed.transpose(0, 1).flatten(1), state, f"{name}.proj")
    return out.view(*x.shape[:2], channels)[:height, :width]


def stage(x: Tensor, state: State, i: int) -> Tensor:
    for j in range(DEPTH):
        block = f"stages.{i}.blocks.{j}."
        shift = WINDOW // 2 if j % 2 else 0
        x = x + attention(norm(x, state, f"{block}norm1"), state, f"{block}attn.w_msa", HEADS[i], shift)
        hidden = F.gelu(linear(norm(x, state, f"{block}norm2"), state, f"{block}ffn.layers.0.0"))
        x = x + linear(hidden, state, f"{block}ffn.layers.1")
    return x


def downsample(x: Tensor, state: State, i: int) -> Tensor:
    """Merged by `unfold`, then the semantic controller with its weight of 0.6."""
    x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
    merged = F.unfold(x.permute(2, 0, 1)[None], 2, stride=2)[0].T.view(x.shape[0] // 2, x.shape[1] // 2, -1)
    x = linear(norm(merged, state, f"stages.{i}.downsample.norm"), state, f"stages.{i}.downsample.reduction")
    weight = torch.tensor([0.6, 1 - 0.6])
    scale, shift = (linear(weight, state, f"semantic_embed_{kind}.{i}") for kind in "wb")
    return x * F.softplus(scale) + shift


def twin_stem(image: Tensor, state: State) -> Tensor:
    projected = F.conv2d(image, state["patch_embed.projection.weight"], state["patch_embed.projection.bias"], stride=4)
    x = norm(projected.permute(1, 2, 0), state, "patch_embed.norm")
    for i in range(2):
        x = downsample(stage(x, state, i), state, i)
    return norm(stage(x, state, 2), state, "norm2").permute(2, 0, 1)


def twin_tail(crop: Tensor, state: State) -> Tensor:
    x = downsample(crop.permute(1, 2, 0), state, 2)
    return norm(stage(x, state, 3), state, "norm3").permute(2, 0, 1)


# ---------------------------------------------------------------- tests
def test_stem_and_tail_are_those_of_solider(tmp_path):
    """Maps larger and smaller than a window, along one axis or both; crops of 14 x 14 are one window in the tail."""
    state = random_state()
    torch.save(file_of(state), tmp_path / "checkpoint.pth")
    backbone = build_backbone("tiny_solider_swin", str(tmp_path / "checkpoint.pth"))
    stem, tail = backbone.stem.eval(), backbone.tail.eval()
    for size in ((128, 128), (96, 128), (96, 64)):
        images = torch.randn(2, 3, *size)
        expected = torch.stack([twin_stem(image, state) for image in images])
        torch.testing.assert_close(stem(images), expected, atol=1e-5, rtol=1e-5)
    for size in ((14, 14), (24, 12), (6, 6), (15, 27)):
        crops = torch.randn(2, 32, *size)
        expected = torch.stack([twin_tail(crop, state) for crop in crops])
        torch.testing.assert_close(tail(crops), expected, atol=1e-5, rtol=1e-5)


def test_a_file_of_the_backbone_alone_is_read_too(tmp_path):
    state = random_state()
    for name, content in (("teacher.pth", file_of(state)["teacher"]), ("bare.pth", state)):
        torch.save(content, tmp_path / name)
    image = torch.randn(1, 3, 64, 64)
    files = (str(tmp_path / name) for name in ("teacher.pth", "bare.pth"))
    first, second = (build_backbone("tiny_solider_swin", file).stem.eval()(image) for file in files)
    assert torch.equal(first, second)


def test_a_file_that_does_not_fit_is_refused_and_what_is_missing_named(tmp_path):
    state = random_state()
    wrong = {
        r"1 missing: norm2.weight$": {key: state[key] for key in state if key != "norm2.weight"},
        r"1 missing: semantic_embed_w.1.bias$": {key: state[key] for key in state if key != "semantic_embed_w.1.bias"},
        r"keys 1 unknown: stages.3.blocks.2.norm1.weight$": state | {"stages.3.blocks.2.norm1.weight": torch.ones(64)},
        r"size mismatch for features.0.0.weight": state | {"patch_embed.projection.weight": torch.ones(9, 3, 4, 4)},
        r"missing: patch_embed.projection.weight, .* and \d+ more; 1 unknown: layer1": {"layer1": torch.ones(1)},
    }  # fmt: skip
    for message, content in wrong.items():
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(UserError, match=f"a.pth do not fit backbone tiny_solider_swin: .*{message}"):
            build_backbone("tiny_solider_swin", str(tmp_path / "a.pth"))
    with pytest.raises(UserError, match="tiny_solider_swin has no weights imagenet: name a file$"):
        build_backbone("tiny_solider_swin", "imagenet")
