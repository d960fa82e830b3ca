"""Seconds and memory of scoring a gallery of real size with drawn features."""

import torch
from yacs.config import CfgNode

from engine.scoring import Setting, score_detection, score_search
from tools.benchmark_cases import Case, Measurement, seconds_of
from tools.benchmark_inputs import drawn_gallery
from tools.benchmark_machine import peak_memory

SEARCHES = {"search s": Setting(), "CBGM s": Setting(cbgm=True)}
"""Name of a sample -> how the search is scored."""

_CPU = torch.device("cpu")


def measure_evaluation(case: Case, cfg: CfgNode, device: torch.device) -> Measurement:  # noqa: ARG001 - as all parts
    """Seconds of detection, search and CBGM for the drawn gallery of the case's name; all of it runs on the CPU."""
    drawn = drawn_gallery(case.name)
    works = {"detection s": lambda: score_detection(drawn.features, drawn.gallery_set, cfg.EVAL.DETECTION_SCORE_THRESH)}
    for name, setting in SEARCHES.items():
        works[name] = lambda setting=setting: score_search(drawn.features, drawn.gallery_set, drawn.query_set, setting)
    samples = {name: [seconds_of(work, _CPU) for _ in range(case.repeat)] for name, work in works.items()}
    facts = {
        "images": len(drawn.gallery_set),
        "boxes": drawn.num_boxes,
        "queries": len(drawn.query_set),
        "peak MiB": peak_memory(_CPU),
    }
    return Measurement(samples, facts=facts)
