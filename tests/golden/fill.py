"""Weights under the names of published releases, and images, drawn from fixed seeds: the inputs of the known answers.

`keys.json` lists the names and shapes that each release's code saves, with small identity tables. The releases' own
code computed the answers (`*.npz`) from these weights: `gallery_*` an image searched, `query_*` and `context_*` one box
of it, both at sizes 240 and 400; NAE+'s `pair_y_*` is the second image of a batch of two. AlignPS's files hold its
maps too (every 64th channel of `reid_map`), `alignps_train.npz` one training step of two images (of the
gradient of P3 the first channel), and `alignps_oim.npz` four steps of its identity losses. `gallery_filter.npz` is of
a gallery filter alone (GFN): scores, losses with gradients, and two steps with its memory (`memory1_*`, `memory2_*`).
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent
SALT = "d"

RESCALERS = {"nae": (90.0, 64.0), "nae_plus": (75.0, 100.0)}
"""Mean and variance of the norms of vectors of networks whose scores are read off them: near the norms that come."""


def generator(name: str) -> np.random.Generator:
    """Each tensor has random numbers of its own."""
    return np.random.default_rng([zlib.crc32(name.encode())])


def released_state(release: str) -> dict[str, Tensor]:
    """The state dict of a release, with the names of files saved by torchvision before 0.13."""
    lists = json.loads((FOLDER / "keys.json").read_text())[release]
    batch_norms = {key.rpartition(".")[0] for key in lists["tensors"] if key.endswith("running_mean")}
    state = {}
    for key, shape in lists["tensors"].items():
        drawn = lists["aliases"].get(key, key)  # a module that the release saves under two names
        state[key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = _draw(drawn, shape, batch_norms)
    if release in RESCALERS:
        _spread_scores(state, *RESCALERS[release])
    if release in CONVNEXTS:
        return {key: _of_convnext(key, value, key.rpartition(".")[0] in batch_norms) for key, value in state.items()}
    if release.startswith("alignps"):
        return {key: _anchor_free(key, value) for key, value in state.items()}
    return state


def _draw(key: str, shape: list[int], batch_norms: set[str]) -> Tensor:
    """One tensor, of a size at which activations stay near 1 and about half of the proposals pass for people."""
    module, _, kind = key.rpartition(".")
    rng = generator(f"{SALT}|{key}")
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = _scaled(key, kind, rng.standard_normal(shape), module in batch_norms)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _scaled(key: str, kind: str, values: np.ndarray, of_batch_norm: bool) -> np.ndarray:
    """Standard normal numbers as a weight of their kind."""
    if kind == "running_mean":
        return 0.1 * values
    if kind in ("lut", "cq"):
        return values / np.linalg.norm(values, axis=1, keepdims=True)
    if kind == "bias":
        return 0.02 * values
    if of_batch_norm:
        return (1 + 0.1 * values) * (0.3 if ".bn3." in key else 1)
    gain = 0.1 if "bbox_pred" in key or "rpn.head" in key else 8.0 if "cls_score" in key else 1.4
    values = gain / np.sqrt(np.prod(values.shape[1:])) * values
    if values.ndim == 2:  # features are positive: rows of a zero sum tell boxes apart instead of shifting all
        values = values - values.mean(axis=1, keepdims=True)
    return values


def _spread_scores(state: dict[str, Tensor], mean: float, variance: float) -> None:
    rescaler = "roi_heads.embedding_head.rescaler."
    state[f"{rescaler}running_mean"] += mean
    state[f"{rescaler}running_var"] *= variance
    for key, value in state.items():
        if ".projectors." in key and value.dim() == 4:  # convolutions of NAE+, as the linear layers above
            state[key] = value - value.mean(dim=1, keepdim=True)


CONVNEXTS = ("seqnext_gfn", "seas")


def _of_convnext(key: str, value: Tensor, of_batch_norm: bool) -> Tensor:
    """A tensor of a release with a ConvNeXt: layer norms, layer scales, and scores that do not saturate."""
    if key.endswith(".layer_scale"):
        return 0.3 + 0.03 / 1.4 * value
    if key.endswith(".weight") and value.dim() == 1 and not of_batch_norm:
        return 1 + 0.1 / 1.4 * value
    return 0.1 * value if key.endswith("cls_score.weight") else value


SCALED = {"backbone.conv1.weight": 1 / 64, "conv_offset.weight": 0.25, "conv_cls.weight": 3}
"""Ends of AlignPS's keys -> factor: for pixels of 0 to 255, small offsets, and some scores that count."""
UNIFORM = {".scale": (0.75, 1.25), "conv_reg.bias": (3, 6), "conv_cls.bias": (-3.2, -2.8)}
"""Ends of its keys -> range of other numbers: boxes of 40 to 100 pixels."""


def _anchor_free(key: str, value: Tensor) -> Tensor:
    """A tensor of AlignPS, of which `_draw` does not know what it is."""
    rng, shape = generator(f"{SALT}|{key}|alignps"), tuple(value.shape)
    for end, limits in UNIFORM.items():
        if key.endswith(end):
            return torch.from_numpy(np.asarray(rng.uniform(*limits, shape), dtype=np.float32))
    if key.endswith(("lookup_table", "queue", "gn.weight", "tail")):
        values = rng.standard_normal(shape)
        if key.endswith("tail"):
            return torch.zeros((), dtype=torch.int64)
        rows = 1 + 0.1 * values if values.ndim == 1 else values / np.linalg.norm(values, axis=1, keepdims=True)
        return torch.from_numpy(rows.astype(np.float32))
    return value * next((factor for end, factor in SCALED.items() if key.endswith(end)), 1)


def image(height: int, width: int, salt: str) -> Tensor:
    """float32 RGB in [0, 1], 3 x height x width: smooth fields of colour with texture."""
    rng = generator(f"{salt}|image")
    coarse = torch.from_numpy(rng.random((1, 3, 12, 16), dtype=np.float32))
    fine = torch.from_numpy(rng.random((1, 3, height, width), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (0.7 * smooth + 0.3 * fine)[0].clamp(0, 1)
