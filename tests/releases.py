"""Tiny networks whose weights have the names that each published release gives them."""

import json

import torch
from golden.fill import FOLDER
from tiny import tiny_model
from torch import Tensor

from models.two_stage.person_search import PersonSearch
from models.two_stage.releases import RELEASES

NO_CONTEXT = {"MODEL__CONTEXT__SCENE": "none", "MODEL__CONTEXT__GROUP": "none"}
ONE_HEAD = NO_CONTEXT | {"MODEL__DETECTION_HEAD__TYPE": "none"}
SEQNEXT = NO_CONTEXT | {
    "MODEL__BACKBONE__NAME": "tiny_convnext",
    "MODEL__SEARCH_HEAD__TYPE": "linear_score",
    "MODEL__SEARCH_HEAD__SCORE": "own",
    "MODEL__SEARCH_HEAD__BOX_DELTAS": "agnostic",
    "MODEL__SEARCH_HEAD__BOX_BATCH_NORM": False,
    "MODEL__OIM__MASK_EMPTY": True,
    "MODEL__OIM__MEAN_OVER": "people",
}
SEAS = NO_CONTEXT | {
    "MODEL__BACKBONE__NAME": "tiny_convnext",
    "MODEL__DETECTION_HEAD__TYPE": "class_agnostic",
    "MODEL__DETECTION_HEAD__POOL": "average",
    "MODEL__DETECTION_HEAD__WITH_PROPOSALS": True,
    "MODEL__SEARCH_HEAD__TYPE": "multi_granularity",
    "MODEL__SEARCH_HEAD__ROI_SIZE": [6, 4],
    "MODEL__SEARCH_HEAD__BOX_DELTAS": "none",
    "MODEL__SEARCH_HEAD__WEIGHT_BY_SCORE": False,
    "MODEL__SEARCH_HEAD__EQUAL_BACKGROUND": True,
    "MODEL__LOSS_WEIGHTS__BOX_TRIPLET": 1.0,
}

OPTIONS = {
    "seqnet": NO_CONTEXT,
    "glcnet_2021": {"MODEL__CONTEXT__GROUP": "none"},
    "glcnet_2024": {
        "MODEL__CONTEXT__SCENE": "gate",
        "MODEL__CONTEXT__GROUP": "multiscale",
        "MODEL__PARTS": True,
        "MODEL__ROI_ALIGN__SIZE": 14,
    },
    "seqnext": SEQNEXT,
    "seqnext_gfn": SEQNEXT | {"MODEL__FILTER__TYPE": "combined"},
    "seas": SEAS,
    "nae": ONE_HEAD,
    "nae_plus": ONE_HEAD | {"MODEL__SEARCH_HEAD__TYPE": "pixelwise"},
}
"""Release -> options of its network."""


def released_model(release: str, **options) -> PersonSearch:
    """A tiny network with the architecture of a release."""
    return tiny_model(**OPTIONS[release], **options)


def released_weights(release: str, model: PersonSearch) -> dict[str, Tensor]:
    """The weights of such a network under the keys of the release's files, aliases and unused ones included.

    A key that gets another weight of the same shape would show in `test_model_golden.py`.
    """
    (described,) = (r for r in RELEASES if r.config == release)
    own, state = model.state_dict(), {}
    for key in json.loads((FOLDER / "keys.json").read_text())[release]["tensors"]:
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        name = described.own_name(key)
        if name is None:
            state[key] = torch.ones(2)
        elif name in own:  # the smaller backbone has a part of the larger one's keys
            state[key] = own[name].clone()
    return state
