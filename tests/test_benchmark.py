"""The benchmark: its load, its cases in processes of their own, its tables and its errors."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import OPTIONS

from models.roi import RoIAlign
from tools.benchmark import runs
from tools.benchmark.__main__ import main, parse_args
from tools.benchmark.cases import Case
from tools.benchmark.evaluation import SIZES, draw_gallery, search_by_loops
from tools.benchmark.network import drawn_images, drawn_targets, new_network, options_of, stage_times
from tools.benchmark.runs import measure, measure_apart, run_rounds
from tools.benchmark.tables import number, tables_of
from tools.common import run_program
from utils.evaluation import evaluate_search

CFG = str(Path(__file__).resolve().parents[1] / "configs" / "prw.yaml")
SAME = [name for name in OPTIONS if not name.startswith("MODEL.OIM")]
WORDS = [str(word) for name in SAME for word in (name, OPTIONS[name])]
CPU = torch.device("cpu")
CASE = Case("inference", "fast", CFG, tuple(WORDS), (96, 160), batch_size=2, seconds=0.01)
STAGES = {"preprocess ms", "stem ms", "rpn ms", "detection_head ms", "search_head ms", "rest ms"}


@pytest.fixture(autouse=True)
def tuned(monkeypatch) -> list[bool]:
    """One entry for each time that the allocator of this process would have been tuned."""
    calls = []
    monkeypatch.setattr(runs, "keep_freed_memory", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize(("name", "cfg"), [("release", "oim_prw"), ("channels-last", "prw"), ("fast", "prw")])
def test_inference_has_a_defined_load_and_stages(name, cfg, tuned):
    figures = measure(replace(CASE, name=name, cfg=CFG.replace("prw", cfg)))
    assert tuned == [True] * (name != "release")
    assert set(figures) == {"images/s", "people", "peak MiB", "warm-up s"} | STAGES
    assert figures["people"] == [10] or cfg == "oim_prw"  # whose proposals all go to the second head
    assert figures["peak MiB"][0] > 50
    assert all(min(figures[stage]) > 0 for stage in STAGES)


def test_hooks_of_stages_are_removed():
    model = new_network("release", options_of(CASE), CPU).eval()
    assert set(stage_times(model, lambda: model(drawn_images(1, (96, 160))), 1)) == STAGES
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.children())


def test_variants_replace_what_they_say():
    plain, fast = (new_network(name, options_of(CASE), CPU) for name in ("release", "fast"))
    for model, replaced in ((plain, False), (fast, True)):
        aligns = [module for module in model.modules() if isinstance(module, RoIAlign)]
        assert {"forward" in vars(align) for align in aligns} == {replaced}
    weights = [next(model.stem.parameters()) for model in (plain, fast)]
    assert [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights] == [False, True]
    torch.testing.assert_close(*[model.state_dict() for model in (plain, fast)])


def test_targets_are_boxes_in_their_images():
    for target in drawn_targets(2, (96, 160), 7):
        corners, opposite = target["boxes"].split(2, dim=1)
        assert ((corners >= 0) & (corners < opposite) & (opposite <= torch.tensor([160, 96]))).all()
        assert set(target["labels"].tolist()) == set(range(1, 8))


def test_training_and_evaluation_are_measured():
    assert min(measure(replace(CASE, part="training"))["steps/s"]) > 0
    evaluation = Case("evaluation", "tiny", CFG)
    assert set(measure(evaluation)) == {"inputs MiB", "boxes", "detection s", "search s", "CBGM s", "peak MiB"}
    assert "detection s" not in measure(replace(evaluation, name="tiny by loops"))


@pytest.mark.parametrize("gallery_size", [0, 12])
@pytest.mark.parametrize("cbgm", [False, True])
def test_loops_score_as_blocks_do(gallery_size, cbgm):
    given = draw_gallery(SIZES["tiny"]._replace(gallery_size=gallery_size))
    blocks = evaluate_search(**given, cbgm=cbgm)
    assert 0 < blocks["mAP"] < 1
    assert search_by_loops(given, cbgm) == pytest.approx({n: blocks[n] for n in ("mAP", "top1")}, abs=1e-6)


def test_killed_process_is_a_failure_of_its_case():
    assert "terminated abruptly" in measure_apart(1, work=os._exit)["failure"]


def test_rounds_pool_samples_and_leave_failed_cases_out():
    cases = [replace(CASE, name=name) for name in ("release", "fast", "compiled")]
    order, reports = [], []

    def run(case):
        order.append(case.name)
        return {"failure": "no compiler"} if case.name == "compiled" else {"images/s": [1.0]}

    results = run_rounds(cases, 2, lambda so_far: reports.append(str(so_far[0])), run)
    assert order == ["release", "fast", "compiled", "release", "fast"]
    assert reports == ["{'images/s': [1.0]}", "{'images/s': [1.0, 1.0]}"]
    assert results == [{"images/s": [1.0, 1.0]}] * 2 + [{"failure": "no compiler"}]


def test_ratios_are_to_the_first_measured_row_of_a_batch_size():
    speeds = {("release", 1): [], ("straightforward", 1): [2.0], ("fast", 1): [5.0, 3.0, 4.0], ("fast", 3): [6.0]}
    cases = [replace(CASE, name=name, batch_size=size) for name, size in speeds]
    results = [{"images/s": samples} if samples else {"failure": "out of memory"} for samples in speeds.values()]
    (rows,) = tables_of(cases, results).values()
    assert [row["times the first"] for row in rows] == ["-", "1.00", "2.00", "1.00"]
    assert rows[2]["images/s"] == "4.00 [3.00, 5.00]"
    assert [row["failure"] for row in rows] == ["out of memory", "-", "-", "-"]
    assert [number(value) for value in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1234"]


def test_program_prints_and_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / "speed.json"
    words = ["inference", *WORDS, "--cfg", CFG, "--image-size", "96", "160", "--seconds", "0.01", "--rounds", "1"]
    words += ["--variants", "fast", "--precisions", "off", "--batch-sizes", "1", "--json", str(out)]
    assert run_program(main, parse_args(words)) == 0
    shown, written = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert len(written["tables"]) == 2
    for title, rows in written["tables"].items():
        assert title in shown and all(cell in shown for row in rows for cell in row.values())
    assert written["cases"][0]["figures"]["images/s"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["MODEL.BACKBONE.NAME", "resnet19"], "MODEL.BACKBONE.NAME 'resnet19'"),
        (["trainings", "1"], "trainings"),
        (["DEVICE", "cuda:77"], "DEVICE cuda:77"),
        (["--cfg", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_one_sentence(words, named, capsys):
    assert run_program(main, parse_args(words)) == 1
    error = capsys.readouterr().err
    assert named in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("words", [["--precisions", "fp8"], ["--rounds", "0"], ["--image-size", "900"]])
def test_wrong_arguments_name_the_argument(words, capsys):
    with pytest.raises(SystemExit):
        parse_args(words)
    assert words[0] in capsys.readouterr().err


def test_parts_come_first_and_options_follow():
    args = parse_args(["training", "SOLVER.CLIP_GRADIENTS", "0"])
    assert (args.parts, args.opts) == (["training"], ["SOLVER.CLIP_GRADIENTS", "0"])
    assert parse_args([]).parts == ["inference", "training", "evaluation"]
