"""Tiny networks whose weights have the names that each published release gives them."""

import torch
from tiny import tiny_model
from torch import Tensor

from models.two_stage.person_search import PersonSearch

NO_CONTEXT = {"MODEL__CONTEXT__SCENE": "none", "MODEL__CONTEXT__GROUP": "none"}
ONE_HEAD = NO_CONTEXT | {"MODEL__DETECTION_HEAD__TYPE": "none"}

OPTIONS = {
    "seqnet": NO_CONTEXT,
    "glcnet_2021": {"MODEL__CONTEXT__GROUP": "none"},
    "glcnet_2024": {
        "MODEL__CONTEXT__SCENE": "gate",
        "MODEL__CONTEXT__GROUP": "multiscale",
        "MODEL__PARTS": True,
        "MODEL__ROI_ALIGN__SIZE": 14,
    },
    "nae": ONE_HEAD,
    "nae_plus": ONE_HEAD | {"MODEL__SEARCH_HEAD__TYPE": "pixelwise"},
}
"""Release -> options of its network."""

_HEADS = "roi_heads."
_EMBEDDING = "roi_heads.embedding_head."
_EVERYWHERE = {
    "rpn.head.conv.0.0.": "rpn.head.conv.",
    "search_head.box_regressor.": f"{_HEADS}box_predictor.bbox_pred.",
    "search_head.embedding.rescaler.": f"{_EMBEDDING}rescaler.",
    "search_head.oim.": f"{_HEADS}reid_loss.",
}
_RES = {"search_head.embedding.projectors.res": f"{_EMBEDDING}projectors.feat_res"}
_ONE_HEAD = {"search_head.features.0.tail.": f"{_HEADS}box_head."}
_TWO_HEADS = {
    "detection_head.features.tail.": f"{_HEADS}box_head.",
    "detection_head.predictor.": f"{_HEADS}faster_rcnn_predictor.",
    "search_head.features.0.tail.": f"{_HEADS}reid_head.",
}
_GRANULARITY = f"{_EMBEDDING}projectors.feat_granularity_"
_2024 = {
    "search_head.embedding.projectors.res4.": f"{_EMBEDDING}projectors.feat_res3.",
    "search_head.embedding.projectors.res5.": f"{_EMBEDDING}projectors.feat_res4.",
    "search_head.embedding.projectors.part1_1.": f"{_GRANULARITY}1.",
    **{
        f"search_head.embedding.projectors.part{stripes}_{row}.": f"{_GRANULARITY}{stripes}_horizon_{row}."
        for stripes in (2, 3)
        for row in range(1, stripes + 1)
    },
    "search_head.embedding.projectors.scene.": f"{_EMBEDDING}projectors.cxt_scene.",
    "search_head.embedding.projectors.group.": f"{_EMBEDDING}projectors.cxt_group.",
    "search_head.contexts.scene.extractor.convs.": "cxt_scene_extractor.convs.",
    "search_head.contexts.group.extractor.branches.0.": "cxt_group_extractor.convs_1x1.",
    "search_head.contexts.group.extractor.branches.1.": "cxt_group_extractor.convs_3x3.",
    "search_head.contexts.group.extractor.branches.2.": "cxt_group_extractor.convs_5x5.",
    "search_head.contexts.group.extractor.attention.fc.": "cxt_group_extractor.channel_attention.fc.",
    **{
        f"search_head.features.1.stripe_tails.{stripes}.layer4.": f"mps.block_granularity_{stripes}.0.1."
        for stripes in (1, 2, 3)
    },
}
_SCENARIO = {
    "search_head.embedding.projectors.scene.": f"{_EMBEDDING}projectors.cxt_scenario.",
    "search_head.contexts.scene.extractor.": "cxt_feat_extractor_scenario.",
}
PREFIXES = {
    "seqnet": {"stem.": "backbone.", **_EVERYWHERE, **_TWO_HEADS, **_RES},
    "glcnet_2021": {"stem.": "backbone.bb.", **_EVERYWHERE, **_TWO_HEADS, **_RES, **_SCENARIO},
    "glcnet_2024": {"stem.": "backbone.bb.", **_EVERYWHERE, **_TWO_HEADS, **_2024},
    "nae": {"stem.": "backbone.", **_EVERYWHERE, **_ONE_HEAD, **_RES},
    "nae_plus": {"stem.": "backbone.", **_EVERYWHERE, **_ONE_HEAD, **_RES},
}
"""Release -> beginning of a name here: beginning of the name there."""

SAVED_TWICE = ("cxt_", "mps.")
"""Beginnings of the names that a release saves again below roi_heads."""


def released_model(release: str, **options) -> PersonSearch:
    """A tiny network with the architecture of a release."""
    return tiny_model(**OPTIONS[release], **options)


def released_weights(release: str, model: PersonSearch) -> dict[str, Tensor]:
    """The weights of such a network as the release would save them: its names, aliases, unused and missing keys."""
    state = {}
    for own, value in model.state_dict().items():
        if own == "search_head.oim.header":
            continue
        begin = next((b for b in PREFIXES[release] if own.startswith(b)), "")
        key = PREFIXES[release].get(begin, "") + own.removeprefix(begin)
        state[key] = value.clone()
        if key.startswith(SAVED_TWICE):
            state[f"{_HEADS}{key}"] = value.clone()
    if release.startswith("nae"):
        state |= {f"{_HEADS}box_predictor.cls_score.weight": torch.ones(2, 8)}
        state |= {f"{_HEADS}box_predictor.cls_score.bias": torch.ones(2)}
    return state
