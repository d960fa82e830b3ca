"""Weights that others have published: how to tell each release from its keys, and its keys in this project's names.

A release is a table of patterns for its keys, matched whole, with the name that each stands for here. What no pattern
matches has no place, and loading says so. A new release is one more entry in `RELEASES`.
"""

import re
from dataclasses import dataclass

from torch import Tensor

Names = tuple[tuple[str, str], ...]
"""Pairs of a pattern for a release's keys and the name here."""

CONFIG_FOLDER = "configs/releases"
DATASETS = {5532: "cuhk_sysu", 482: "prw"}
"""Rows of a release's identity table -> the dataset that it was trained on."""

_PROJECTORS = "roi_heads.embedding_head.projectors."
_STEM: Names = ((r"backbone\.((?:conv1|bn1|layer[123])\..+)", r"stem.\1"),)
_STEM_BB: Names = ((r"backbone\.bb\.((?:conv1|bn1|layer[123])\..+)", r"stem.\1"),)
_RPN: Names = (
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.head.conv.0.0.\1"),  # without 0.0. before torchvision 0.13
    (r"rpn\.head\.(cls_logits|bbox_pred)\.(weight|bias)", r"rpn.head.\1.\2"),
)
_ONE_HEAD: Names = ((r"roi_heads\.box_head\.(layer4\..+)", r"search_head.features.0.tail.\1"),)
_TWO_HEADS: Names = (
    (r"roi_heads\.box_head\.(layer4\..+)", r"detection_head.features.tail.\1"),
    (r"roi_heads\.faster_rcnn_predictor\.((?:cls_score|bbox_pred)\..+)", r"detection_head.predictor.\1"),
    (r"roi_heads\.reid_head\.(layer4\..+)", r"search_head.features.0.tail.\1"),
)
_SEARCH_HEAD: Names = (
    (r"roi_heads\.box_predictor\.bbox_pred\.([01]\..+)", r"search_head.box_regressor.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"search_head.box_regressor.0.\1"),  # without batch norm
    (r"roi_heads\.embedding_head\.rescaler\.(.+)", r"search_head.embedding.rescaler.\1"),
    (r"roi_heads\.reid_loss\.(lut|cq)", r"search_head.oim.\1"),
)
_RES4_RES5: Names = (
    (r"roi_heads\.embedding_head\.projectors\.feat_(res[45])\.(.+)", r"search_head.embedding.projectors.\1.\2"),
)
_SCENE_2021: Names = (
    (r"roi_heads\.embedding_head\.projectors\.cxt_scenario\.(.+)", r"search_head.embedding.projectors.scene.\1"),
    (r"(?:roi_heads\.)?cxt_feat_extractor_scenario\.(.+)", r"search_head.contexts.scene.extractor.\1"),
)
_PROJECTORS_2024: Names = tuple(
    (rf"roi_heads\.embedding_head\.projectors\.{theirs}\.(.+)", rf"search_head.embedding.projectors.{ours}")
    for theirs, ours in (
        ("feat_res3", r"res4.\1"),  # this release counts ResNet's layers, not its stages
        ("feat_res4", r"res5.\1"),
        ("cxt_(scene|group)", r"\1.\2"),
        ("feat_granularity_1", r"part1_1.\1"),
        ("feat_granularity_([23])_horizon_([123])", r"part\1_\2.\3"),
    )
)
_CONTEXT_2024: Names = tuple(
    (rf"(?:roi_heads\.)?cxt_(scene|group)_extractor\.{theirs}\.(.+)", rf"search_head.contexts.\1.extractor.{ours}.\2")
    for theirs, ours in (
        ("convs", "convs"),
        ("convs_1x1", "branches.0"),
        ("convs_3x3", "branches.1"),
        ("convs_5x5", "branches.2"),
        (r"channel_attention\.fc", "attention.fc"),
    )
)
_PARTS_2024: Names = (
    (
        r"(?:roi_heads\.)?mps\.block_granularity_([123])\.0\.1\.(.+)",
        r"search_head.features.1.stripe_tails.\1.layer4.\2",
    ),
)


@dataclass(frozen=True)
class Release:
    """How one published code base names the weights of its network.

    Attributes:
        title: its name, for people.
        config: what the names of its files in configs/releases begin with.
        marks: beginnings of keys by which it is told from the others; each begins at least one key.
        names: its keys.
        projector_dims: dimensions of the embedding's projections: 2 for linear layers, 4 for convolutions.
        unused: pattern of the keys that it saves though its network never uses them.
    """

    title: str
    config: str
    marks: tuple[str, ...]
    names: Names
    projector_dims: int = 2
    unused: str = r"(?!)"

    def matches(self, state: dict[str, Tensor]) -> bool:
        """Whether the keys and the projections are this release's."""
        dims = {state[key].dim() for key in state if key.startswith(_PROJECTORS) and key.endswith(".0.weight")}
        return dims == {self.projector_dims} and all(any(key.startswith(m) for key in state) for m in self.marks)

    def config_files(self, state: dict[str, Tensor]) -> list[str]:
        """The configs for weights `state` (in this project's names): of their dataset, or of all if that is unknown."""
        table = state.get("search_head.oim.lut")
        dataset = DATASETS.get(len(table)) if table is not None and table.dim() else None
        return [f"{CONFIG_FOLDER}/{self.config}_{name}.yaml" for name in ([dataset] if dataset else DATASETS.values())]

    def own_name(self, key: str) -> str | None:
        """What a key of the release is called here; None if it has no place."""
        for pattern, name in self.names:
            match = re.fullmatch(pattern, key)
            if match:
                return match.expand(name)
        return None


_NAE_FAMILY = {
    "marks": ("roi_heads.box_head.layer4.", f"{_PROJECTORS}feat_res5."),
    "names": _STEM + _RPN + _ONE_HEAD + _SEARCH_HEAD + _RES4_RES5,
    "unused": r"roi_heads\.box_predictor\.cls_score\.(weight|bias)",
}

RELEASES = (
    Release(
        "GLCNet (2024)",
        "glcnet_2024",
        ("roi_heads.reid_head.", f"{_PROJECTORS}feat_res3."),
        _STEM_BB + _RPN + _TWO_HEADS + _SEARCH_HEAD + _PROJECTORS_2024 + _CONTEXT_2024 + _PARTS_2024,
    ),
    Release(
        "GLCNet (2021)",
        "glcnet_2021",
        ("roi_heads.reid_head.", f"{_PROJECTORS}cxt_scenario."),
        _STEM_BB + _RPN + _TWO_HEADS + _SEARCH_HEAD + _RES4_RES5 + _SCENE_2021,
    ),
    Release(
        "SeqNet (2021)",
        "seqnet",
        ("roi_heads.reid_head.", f"{_PROJECTORS}feat_res5."),
        _STEM + _RPN + _TWO_HEADS + _SEARCH_HEAD + _RES4_RES5,
    ),
    Release("NAE+ (2020)", "nae_plus", projector_dims=4, **_NAE_FAMILY),
    Release("NAE (2020)", "nae", **_NAE_FAMILY),
)
"""The releases that are known; the first whose marks a file has is taken, so those with more marks come first."""
