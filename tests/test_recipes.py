"""The strongest recipes as their configs have them, with a tiny backbone of the same kind: through every program."""

import pytest
from programs import walk
from tiny import OPTIONS, ROOT

SMALL = OPTIONS | {
    "INPUT.CROP_SIZE": 64,
    "MODEL.BACKBONE.DROP_PATH": -1.0,
    "MODEL.FILTER.GRID": 8,
    "MODEL.ROI_ALIGN.SIZE": 6,
    "SOLVER.AMP": "off",
    "SOLVER.MAX_EPOCHS": 2,
    "SOLVER.MILESTONES": "[1]",
    "CKPT_MINUTES": 1e-6,  # a checkpoint at each step
    "CKPT_KEEP": 1,
}
del SMALL["MODEL.OIM.NUM_IDS"]
BACKBONES = {
    "seqnext": "tiny_convnext",
    "seqnext_gfn": "tiny_convnext",
    "seas": "tiny_convnext",
    "glcnet_convnext": "tiny_convnext",
    "glcnet_swin": "tiny_solider_swin",
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", BACKBONES)
def test_every_program_takes_it(recipe, cuhk, tmp_path, monkeypatch):
    def options(data, out) -> list:
        given = SMALL | {"MODEL.BACKBONE.NAME": BACKBONES[recipe], "INPUT.DATA_ROOT": data, "OUTPUT_DIR": out}
        config = ROOT / "configs" / f"{recipe}_cuhk_sysu.yaml"
        return ["--cfg", config, *(str(word) for pair in given.items() for word in pair)]

    walk(options, cuhk, tmp_path, monkeypatch)
