"""The benchmark: its statistics, its load, its cases in processes of their own, its tables and its errors."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import OPTIONS, picture

import tools.benchmark_runs
from engine.scoring import Setting, score_search
from tools.benchmark import main, parse_args
from tools.benchmark_cases import Case, Measurement, Result, Summary
from tools.benchmark_inference import STAGES, StageClock, watched
from tools.benchmark_inputs import WORLDS, draw
from tools.benchmark_loops import search_by_loops
from tools.benchmark_machine import describe_machine, peak_memory
from tools.benchmark_network import drawn_images, drawn_targets, new_network, options_of
from tools.benchmark_runs import measure, measure_apart, run_rounds
from tools.benchmark_tables import number, tables_of
from tools.benchmark_variants import VARIANTS
from tools.common import run_program

CFG = str(Path(__file__).resolve().parents[1] / "configs" / "prw.yaml")
WORDS = [str(word) for pair in OPTIONS.items() for word in pair]
CPU = torch.device("cpu")
CASE = Case("inference", "fast", CFG, tuple(WORDS), (96, 160), batch_size=2, repeat=2)


@pytest.fixture
def tuned(monkeypatch) -> list[bool]:
    """One entry for each time that the allocator would have been tuned."""
    calls = []
    monkeypatch.setattr(tools.benchmark_runs, "keep_freed_memory", lambda: calls.append(True))
    return calls


def network(**options):
    return new_network(options_of(replace(CASE, **options)), CPU)


# ----------------------------------------------------------------------------------------------------------- statistics
def test_summary_of_known_samples():
    assert Summary.of([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0)
    assert Summary.of(iter([4.0, 1.0, 2.0, 10.0])) == Summary(3.0, 1.0, 10.0)
    with pytest.raises(ValueError, match="no samples"):
        Summary.of([])


def test_numbers_keep_three_digits():
    assert [number(value) for value in (0.01234, 1.0, 12.34, 99.94, 1234.5, None)] == [
        "0.0123", "1.00", "12.3", "99.9", "1234", "-",
    ]  # fmt: skip


def test_result_pools_its_rounds():
    rounds = [
        Measurement({"images/s": [1.0, 5.0]}, {"stem": [2.0]}, {"peak MiB": 7.0, "warm-up s": 3.0}),
        Measurement({"images/s": [2.0]}, {"stem": [4.0]}, {"peak MiB": 9.0, "warm-up s": 1.0}),
    ]
    result = Result(CASE, rounds)
    assert result.samples() == {"images/s": Summary(2.0, 1.0, 5.0)}
    assert result.stages() == {"stem": Summary(3.0, 2.0, 4.0)}
    assert result.fact("peak MiB") == 9.0
    assert result.fact("warm-up s", min) == 1.0
    assert result.fact("unknown") is None
    assert json.loads(json.dumps(result.as_json()))["rounds"][0]["samples"] == {"images/s": [1.0, 5.0]}


# ----------------------------------------------------------------------------------------------------------------- load
def test_load_is_defined_and_results_finite():
    model = network()
    counts = {}
    images = [image / 255 for image in drawn_images(2, CASE.image_size)]
    with watched(model, StageClock(CPU), counts):
        found = model(images)
    assert counts["people"] == 20
    assert counts["proposals"] > 20
    assert all(value.isfinite().all() for image in found for value in image.values())


def test_activations_stay_in_range():
    model = network()
    feature_map = model.stem(model.preprocess(drawn_images(1, CASE.image_size)).tensors)
    nonzero = feature_map[feature_map != 0].abs()
    assert 0.1 < nonzero.mean() < 10
    assert (nonzero > torch.finfo(torch.float32).tiny).all()


def test_statistics_are_those_of_images_and_nothing_else_is_left_changed():
    model = network()
    assert not model.training
    assert (model.preprocess.min_size, model.preprocess.max_size) == (96, 160)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert not any(torch.equal(norm.running_var, torch.ones_like(norm.running_var)) for norm in norms)


def test_targets_lie_in_their_images():
    for identities in (0, 7):
        for target in drawn_targets(2, (96, 160), identities):
            x1, y1, x2, y2 = target["boxes"].unbind(1)
            assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 160).all() and (y2 <= 96).all()
            assert ((x2 - x1) * (y2 - y1) > 0).all()
            assert set(target["labels"].tolist()) == ({-1} if not identities else set(range(1, 8)))


NETWORKS = ["release", "straightforward", "channels-last", "fast"]


@pytest.mark.parametrize("name", NETWORKS)
def test_variant_finds_what_the_network_finds(name):
    wanted = network()([picture(96, 160)])[0]
    found = VARIANTS[name].searcher(network(), None)([picture(96, 160)])[0]
    assert len(wanted["boxes"])
    torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(found["embeddings"], wanted["embeddings"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_variant_learns_what_the_network_learns(name):
    images, targets = [picture(96, 160)], drawn_targets(1, (96, 160), 7)
    losses = []
    for model in (network(), VARIANTS[name].learner(network())):
        torch.manual_seed(0)
        losses.append(model.train()(2 * images, 2 * targets))
    torch.testing.assert_close(losses[1], losses[0], atol=1e-2, rtol=1e-2)  # rounding may draw another RoI


# ---------------------------------------------------------------------------------------------------------------- cases
def test_inference_is_measured_with_its_stages(tuned):
    measured = measure(CASE)
    assert measured.error is None
    assert tuned == [True]
    assert len(measured.samples["images/s"]) == 2
    assert set(measured.stages) == set(STAGES)
    assert all(len(samples) == 2 and min(samples) > 0 for samples in measured.stages.values())
    assert measured.facts["people an image"] == 10
    assert measured.facts["peak MiB"] > 50
    assert measured.facts["cores"] > 0


def test_network_without_first_head_lacks_its_stages(tuned):
    oim = str(Path(CFG).with_name("oim_prw.yaml"))
    measured = measure(replace(CASE, name="release", cfg=oim, precision="bf16"))
    assert measured.error is None
    assert tuned == []
    assert set(STAGES) - set(measured.stages) == {"its RoIAlign", "its features"}
    assert measured.facts["people an image"] == measured.facts["proposals an image"]


def test_watching_leaves_no_trace():
    model = network()
    clock = StageClock(CPU)
    with watched(model, clock, {}):
        model([picture(96, 160)])
    seen = dict(clock.seconds)
    model([picture(96, 160)])
    assert seen
    assert clock.seconds == seen


def test_training_is_measured(tuned):
    measured = measure(replace(CASE, part="training"))
    assert measured.error is None
    assert len(measured.samples["iterations/s"]) == 2


def test_evaluation_is_measured(tuned):
    measured = measure(Case("evaluation", "tiny", CFG, (), repeat=2))
    assert measured.error is None
    assert {name: len(samples) for name, samples in measured.samples.items()} == dict.fromkeys(
        ["detection s", "search s", "CBGM s"], 2
    )
    assert measured.facts["boxes"] >= measured.facts["images"] > 0
    assert set(measure(Case("evaluation", "tiny", CFG, (), loops=True)).samples) == {"search s", "CBGM s"}


@pytest.mark.parametrize("gallery_size", [0, 12])
@pytest.mark.parametrize("cbgm", [False, True])
def test_loops_score_as_blocks_do(gallery_size, cbgm):
    drawn = draw(replace(WORLDS["tiny"](), gallery_size=gallery_size))
    sets = drawn.gallery_set, drawn.query_set
    blocks = score_search(drawn.features, *sets, Setting(cbgm=cbgm))
    assert 0 < blocks["mAP"] < 1
    assert search_by_loops(drawn.features, *sets, cbgm) == pytest.approx(
        {name: blocks[name] for name in ("mAP", "top1")}, abs=1e-6
    )


def test_killed_process_is_an_error_of_its_case():
    assert "killed" in measure_apart(1, work=os._exit).error


def test_rounds_take_turns_and_leave_failed_cases_out():
    cases = [replace(CASE, name=name) for name in ("release", "fast", "compiled")]
    order, reports = [], []

    def run(case: Case) -> Measurement:
        order.append(case.name)
        return Measurement(error="no compiler") if case.name == "compiled" else Measurement({"images/s": [1.0]})

    results = run_rounds(cases, 2, lambda so_far: reports.append(len(so_far[0].rounds)), run)
    assert order == ["release", "fast", "compiled", "release", "fast"]
    assert reports == [1, 2]
    assert [result.error for result in results] == [None, None, "no compiler"]


# --------------------------------------------------------------------------------------------------------------- tables
def test_ratios_are_to_the_first_measured_row_of_a_batch_size():
    def result(name: str, batch: int, speeds: list[float]) -> Result:
        measured = Measurement({"images/s": speeds}) if speeds else Measurement(error="RuntimeError: out of memory")
        return Result(replace(CASE, name=name, batch_size=batch), [measured])

    results = [
        result("release", 1, []),
        result("straightforward", 1, [2.0]),
        result("fast", 1, [5.0, 3.0, 4.0]),
        result("fast", 3, [6.0]),
    ]
    rows = next(iter(tables_of(results).values()))
    assert [row["times the first"] for row in rows] == ["-", "1.00", "2.00", "1.00"]
    assert [row["images/s"] for row in rows][2] == "4.00 [3.00, 5.00]"
    assert [row["failure"] for row in rows] == ["RuntimeError: out of memory", "", "", ""]
    without = next(iter(tables_of(results[1:]).values()))
    assert "failure" not in without[0]


# -------------------------------------------------------------------------------------------------------------- program
def test_program_prints_and_writes_what_it_measured(tmp_path, capsys):
    """Two processes: inference, and a training step that fails for want of a second image."""
    out = tmp_path / "new" / "speed.json"
    words = ["inference", "training", *WORDS, "INPUT.BATCH_SIZE_TRAIN", "1", "--cfg", CFG, "--image-size", "96", "160"]
    words += ["--variants", "fast", "--precisions", "off", "--batch-sizes", "1", "--rounds", "1", "--repeat", "2"]
    assert run_program(main, parse_args([*words, "--json", str(out)])) == 0
    shown = capsys.readouterr().out
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["machine"]["torch"] == torch.__version__
    assert len(written["tables"]) == 3
    for title, rows in written["tables"].items():
        assert title in shown
        assert all(cell in shown for row in rows for cell in row.values())
    inference, training = written["cases"]
    assert len(inference["rounds"][0]["samples"]["images/s"]) == 2
    assert inference["error"] is None
    assert training["rounds"][0]["samples"] == {}
    assert "more than 1 value per channel" in training["error"]
    assert training["error"] in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["MODEL.BACKBONE.NAME", "resnet19"], "MODEL.BACKBONE.NAME 'resnet19'"),
        (["trainings", "1"], "there is no option 'trainings'"),
        (["DEVICE", "cuda:77"], "DEVICE cuda:77"),
        (["--cfg", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_one_sentence(words, told, capsys):
    assert run_program(main, parse_args(words)) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["--precisions", "fp8"], ["--variants", "fastest"], ["--repeat", "0"], ["--image-size", "900"]]
)
def test_wrong_arguments_name_the_argument(words, capsys):
    with pytest.raises(SystemExit):
        parse_args(words)
    assert f"argument {words[0]}" in capsys.readouterr().err


def test_parts_come_first_and_options_follow():
    args = parse_args(["training", "SOLVER.CLIP_GRADIENTS", "0"])
    assert (args.parts, args.opts) == (["training"], ["SOLVER.CLIP_GRADIENTS", "0"])
    assert parse_args([]).parts == ["inference", "training", "evaluation"]


def test_machine_is_described():
    machine = describe_machine(CPU)
    assert machine["cores"] == os.cpu_count()
    assert machine["memory MiB"] > peak_memory(CPU) > 50
    assert json.loads(json.dumps(machine)) == machine
