"""Seconds and memory of scoring a gallery of real size with drawn features."""

from collections.abc import Callable

import torch
from yacs.config import CfgNode

from engine.scoring import Setting, score_detection, score_search
from tools.benchmark_cases import Case, Measurement, seconds_of
from tools.benchmark_inputs import WORLDS, DrawnGallery, draw
from tools.benchmark_loops import search_by_loops
from tools.benchmark_machine import peak_memory

_CPU = torch.device("cpu")


def measure_evaluation(case: Case, cfg: CfgNode, device: torch.device) -> Measurement:  # noqa: ARG001 - as all parts
    """Seconds of detection, search and CBGM for the drawn gallery of the case's name; all of it runs on the CPU."""
    drawn = draw(WORLDS[case.name]())
    before = peak_memory(_CPU)
    works = _by_loops(drawn) if case.loops else _in_blocks(drawn, cfg)
    samples = {name: [seconds_of(work, _CPU) for _ in range(case.repeat)] for name, work in works.items()}
    facts = {
        "images": len(drawn.gallery_set),
        "boxes": drawn.num_boxes,
        "queries": len(drawn.query_set),
        "peak MiB": peak_memory(_CPU),
        "inputs MiB": before,
    }
    return Measurement(samples, facts=facts)


def _in_blocks(drawn: DrawnGallery, cfg: CfgNode) -> dict[str, Callable[[], object]]:
    """What tools.test does with features."""
    features, block = drawn.features, cfg.EVAL.BLOCK_MB

    def search(setting: Setting) -> dict[str, float]:
        return score_search(features, drawn.gallery_set, drawn.query_set, setting, block)

    return {
        "detection s": lambda: score_detection(features, drawn.gallery_set, cfg.EVAL.DETECTION_SCORE_THRESH),
        "search s": lambda: search(Setting()),
        "CBGM s": lambda: search(Setting(cbgm=True)),
    }


def _by_loops(drawn: DrawnGallery) -> dict[str, Callable[[], object]]:
    sets = drawn.features, drawn.gallery_set, drawn.query_set
    return {
        "search s": lambda: search_by_loops(*sets, cbgm=False),
        "CBGM s": lambda: search_by_loops(*sets, cbgm=True),
    }
