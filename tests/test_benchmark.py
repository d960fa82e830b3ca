"""The benchmark: its load, its cases in processes of their own, its results and its errors."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny import OPTIONS, ROOT

from models.roi import RoIAlign
from tools.benchmark import processes
from tools.benchmark.__main__ import describe, main, parse_args
from tools.benchmark.case import SIZES, Case
from tools.benchmark.evaluation import draw_gallery
from tools.benchmark.network import new_network, options_of
from tools.benchmark.processes import measure, measure_apart
from tools.common import INTERRUPTED, run_program
from utils.evaluation import evaluate_search

CFG = str(ROOT / "configs" / "prw.yaml")
SAME = [name for name in OPTIONS if not name.startswith("MODEL.OIM")]
WORDS = [str(word) for name in SAME for word in (name, OPTIONS[name])]
CPU = torch.device("cpu")
CASE = Case("inference", "fast", CFG, tuple(WORDS), (96, 160), batch_size=2, seconds=0.01)
STAGES = dict.fromkeys(["oim_prw", "prw"], ("preprocess", "stem", "rpn", "detection_head", "search_head", "rest"))
STAGES["alignps_plus_prw"] = ("preprocess", "backbone", "neck", "head", "rest")


@pytest.fixture(autouse=True)
def tuned(monkeypatch) -> list[bool]:
    """One entry for each time that the allocator of this process would have been tuned."""
    calls = []
    monkeypatch.setattr(processes, "keep_freed_memory", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize(
    ("name", "cfg"), [("release", "oim_prw"), ("channels-last", "prw"), ("fast", "prw"), ("fast", "alignps_plus_prw")]
)
def test_inference_has_a_defined_load_and_stages(name, cfg, tuned):
    figures = measure(replace(CASE, name=name, cfg=CFG.replace("prw", cfg)))
    assert tuned == [True] * (name != "release")
    stages = {f"{name} ms" for name in STAGES[cfg]}
    assert set(figures) == {"images/s", "people", "peak MiB", "warm-up s"} | stages
    assert figures["people"] == [10] or cfg == "oim_prw"  # whose proposals all go to the second head
    assert figures["peak MiB"][0] > 50
    assert all(min(figures[stage]) > 0 for stage in stages)


def test_variants_replace_what_they_say():
    plain, fast = (new_network(name, options_of(CASE), CPU) for name in ("release", "fast"))
    for model, replaced in ((plain, False), (fast, True)):
        aligns = [module for module in model.modules() if isinstance(module, RoIAlign)]
        assert {"forward" in vars(align) for align in aligns} == {replaced}
    weights = [next(model.stem.parameters()) for model in (plain, fast)]
    assert [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights] == [False, True]
    torch.testing.assert_close(*[model.state_dict() for model in (plain, fast)])


def test_training_and_evaluation_are_measured():
    assert min(measure(replace(CASE, part="training"))["steps/s"]) > 0
    figures = measure(Case("evaluation", "tiny", CFG))
    assert set(figures) == {"inputs MiB", "boxes", "detection s", "search s", "CBGM s", "companions s", "peak MiB"}


def test_drawn_galleries_are_neither_trivial_nor_hopeless():
    given = draw_gallery(SIZES["tiny"]._replace(gallery_size=12))
    assert 0 < evaluate_search(**given)["mAP"] < 1
    assert {len(gallery.images) for gallery in given["query_set"].galleries()} == {12}


def test_results_are_medians_and_ratios_to_the_first():
    assert describe({"images/s": [5.0, 3.0, 4.0], "people": [10.0]}, 2.0) == (
        "images/s 4 [3, 5], times the first 2.00, people 10"
    )
    assert describe({"failure": "out of memory"}, None) == "out of memory"


@pytest.mark.slow
def test_program_prints_and_writes_each_result_as_it_comes(tmp_path, capsys, monkeypatch):
    """One case ends, the next one fails, and Ctrl-C comes during the third: two results are printed and written."""

    def interrupted(case):
        if case.name == "fast":
            raise KeyboardInterrupt
        return measure(case) if case.name == "release" else measure_apart(replace(case, precision="fp8"))

    monkeypatch.setattr(processes, "measure_apart", interrupted)
    out = tmp_path / "speed.json"
    words = ["inference", *WORDS, "--cfg", CFG, "--image-size", "96", "160", "--seconds", "0.01", "--json", str(out)]
    words += ["--variants", "release", "channels-last", "fast", "--precisions", "off", "--batch-sizes", "1"]
    assert run_program(main, parse_args(words)) == INTERRUPTED
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("inference, release, precision off, batch 1: images/s ")
    assert "times the first 1.00" in first and "stem ms" in first
    assert second.startswith("inference, channels-last, precision off, batch 1: UserError: --precisions")
    release, failed = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert release["figures"]["images/s"] and "UserError" in failed["figures"]["failure"]


@pytest.mark.slow  # two processes import PyTorch
def test_program_measures_in_processes_of_its_own(tmp_path):
    words = ["inference", *WORDS, "--cfg", CFG, "--image-size", "96", "160", "--seconds", "0.01"]
    command = [sys.executable, "-m", "tools.benchmark", *words, "--variants", "fast", "--precisions", "off"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "batch 1: images/s" in done.stdout and "batch 3: images/s" in done.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [(["trainings", "1"], "trainings"), (["--cfg", "no.yaml"], "no.yaml"), (["--precisions", "fp8"], "--precisions")],
)
def test_wrong_options_are_one_sentence(words, named, capsys):
    assert run_program(main, parse_args(words)) == 1
    error = capsys.readouterr().err
    assert named in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--image-size", "900"]])
def test_wrong_arguments_name_the_argument(words, capsys):
    with pytest.raises(SystemExit):
        parse_args(words)
    assert words[0] in capsys.readouterr().err


def test_parts_come_first_and_options_follow():
    args = parse_args(["training", "SOLVER.CLIP_GRADIENTS", "0"])
    assert (args.parts, args.opts) == (["training"], ["SOLVER.CLIP_GRADIENTS", "0"])
