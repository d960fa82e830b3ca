"""The report of test runs: its numbers against plain twins, its page parsed, and runs that lack something."""

import json
import shutil
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import CFG, call, draw, words

pytest.importorskip("matplotlib", reason="a report needs matplotlib: pip install -r requirements-report.txt")

from torch.utils.tensorboard import SummaryWriter

from datasets import build_dataset
from defaults import load_cfg
from engine.feature_files import Features, save_features
from engine.features import names_of
from tools import test as test_tool
from tools.report import __main__ as report
from tools.report.analysis import height_ranges
from tools.report.errors import count_errors, kinds_of, overlapping_people
from tools.report.ranking_lists import choose_queries
from tools.report.runs import open_runs
from tools.report.training import read_curves
from utils.evaluation import Gallery, Ranking

WIDTH = 8
NAME = '<b>"Net" & $co$'
"""Of a run; to be escaped."""


def drawn_run(data: Path, folder: Path, seed: int, name: str = "CUHK-SYSU", noise: float = 0.5) -> Path:
    """A training run's folder with a test in it, of features drawn from the annotations; no network runs."""
    rng = np.random.default_rng(seed)
    gallery_set, query_set = (build_dataset(name, data, split) for split in ("gallery", "query"))
    identities = rng.standard_normal((100, WIDTH))

    def embed(pids):
        rows = identities[np.asarray(pids)] + noise * rng.standard_normal((len(pids), WIDTH))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    features = Features(**dict(zip(("gallery_names", "query_names"), names_of(gallery_set, query_set), strict=True)))
    for annotation in gallery_set.annotations:
        kept = rng.random(len(annotation["pids"])) < 0.9
        boxes = np.vstack([annotation["boxes"][kept], [[0, 0, 9, 20]]])  # the last one is of the background
        features.gallery_dets.append(np.c_[boxes, rng.uniform(0.6, 1, len(boxes))].astype(np.float32))
        features.gallery_feats.append(embed([*annotation["pids"][kept], 0]))
    for query in query_set.annotations:
        own = embed(query["pids"])
        features.query_feats.append(own)
        features.context_dets.append(np.array([[*query["boxes"][0], 1], [20, 20, 40, 80, 0.9]], np.float32))
        features.context_feats.append(np.vstack([own, embed([0])]))
    save_features(folder / "features.npz", features)
    options = words(data, folder, name, SEED=seed)
    assert call(test_tool, "--cfg", CFG, *options, "--features", folder / "features.npz") == 0
    (folder / "config.yaml").write_text(load_cfg(CFG, options).dump())
    with SummaryWriter(str(folder / "tensorboard")) as board:
        for step in range(1, 4):
            board.add_scalar("train/loss_total", 1 / step, step)
    return folder


@pytest.fixture(scope="module")
def runs(cuhk, tmp_path_factory) -> list[Path]:
    """Two runs of one dataset; not to be written to."""
    return [drawn_run(cuhk, tmp_path_factory.mktemp("runs") / f"net{seed}", seed) for seed in (1, 2)]


class Page(HTMLParser):
    """Addresses, ids, numbers of elements, and the text of a page."""

    def __init__(self, file: Path):
        super().__init__()
        self.addresses, self.ids, self.classes, self.tags, self.words = [], [], Counter(), Counter(), []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags[tag] += 1
        self.classes.update((given.get("class") or "").split())
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        self.ids += [given["id"]] if "id" in given else []

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory) -> Path:
    """A report of both runs; not to be written to."""
    out = tmp_path_factory.mktemp("made") / "report with ümlaut"
    assert call(report, f"{NAME}={runs[0]}", runs[1], "--out", out, "--figures", "--queries", 4) == 0
    return out


def test_page_shows_both_runs_and_refers_to_its_own_files_alone(made):
    out, file = made, made / "index.html"
    page, text = Page(file), file.read_text(encoding="utf-8")
    assert NAME in page.words and "net2" in page.words and "<b>" not in text.replace("&lt;b&gt;", "")
    missing = [name for name in page.addresses if not name.startswith("#") and not (out / name).is_file()]
    assert not missing and any(name.startswith("pictures/") for name in page.addresses)
    in_page = [name[1:] for name in page.addresses if name.startswith("#")]
    assert not set(in_page) - set(page.ids) and len(set(page.ids)) == len(page.ids)
    foreign = [
        word for word in ("http://", "https://", "//cdn", "@import") if word in text.replace("http://www.w3.org/", "")
    ]
    assert not foreign
    assert page.classes["query"] == 4 and page.classes["list"] == 4 * 2 * 3
    assert {"scores", "training", "detection", "search", "same", "errors", "rankings", "settings"} <= set(page.ids)
    scenes = json.loads(text.split('id="scenes">')[1].split("</script>")[0])
    assert all((out / scene).is_file() for scene in scenes)
    made = sorted(path.name for path in (out / "figures").iterdir())
    assert made == ["gallery_size.pdf", "gallery_size.png", "rankings.pdf", "rankings.png"]
    assert "SEED" in page.words and "loss_total" in text and "#0f00f0" not in text


def test_a_single_file_holds_everything_and_replaces_an_earlier_report(made, runs, tmp_path):
    out = Path(shutil.copytree(made, tmp_path / "report"))
    assert call(report, runs[0], "--out", out, "--single-file") == 0
    assert sorted(path.name for path in out.iterdir()) == [".files.json", "index.html"]
    page = Page(out / "index.html")
    assert {address[:5] for address in page.addresses if not address.startswith("#")} == {"data:"}
    (out / "mine.txt").touch()
    assert call(report, runs[0], "--out", out) == 1, "what is somebody else's stays"


def test_cameras_are_groups_where_they_are_known(tmp_path):
    run = drawn_run(draw(tmp_path / "prw", "prw"), tmp_path / "run", 1, "PRW")
    assert call(report, run, "--out", tmp_path / "report") == 0
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "camera 2" in text and "has one gallery" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: shutil.rmtree(run / "test"), "holds no test"),
        (lambda run: (run / "test" / "config.yaml").unlink(), "is not of this version's tools.test"),
        (lambda run: (run / "test" / "metrics.json").write_text("{"), "is damaged"),
        (lambda run: rewrite(run, features_file=None), "this test kept no features"),
        (lambda run: rewrite(run, features_file="gone.npz"), "its features, gone.npz, are gone"),
        (lambda run: rewrite(run, data="elsewhere"), "tests on the same data"),
        (lambda run: choose(run, "EVAL.GALLERY_SIZE", 50), "EVAL.GALLERY_SIZE is 0 in the test of net2 and 50 in that"),
        (lambda run: choose(run, "EVAL.CROSS_CAMERA", True), "EVAL.CROSS_CAMERA is False in the test of net2"),
    ],
)
def test_a_run_that_lacks_something_is_one_sentence(change, message, runs, tmp_path, capsys):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    change(run)
    assert call(report, runs[1], run, "--out", tmp_path / "report") == 1
    assert message in capsys.readouterr().err and not (tmp_path / "report").exists()


def rewrite(run: Path, **values) -> None:
    file = run / "test" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def choose(run: Path, *option) -> None:
    file = run / "test" / "config.yaml"
    file.write_text(load_cfg(file, list(option)).dump())


def test_the_training_is_that_of_the_checkpoint_tested(runs, tmp_path):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    assert [open_runs([str(given)])[0].training for given in (run, run / "test")] == [run, run]
    rewrite(run, checkpoint=str(runs[1] / "best.pth"))
    assert open_runs([str(run)])[0].training == runs[1]
    rewrite(run, checkpoint=str(tmp_path / "released.pth"))
    assert open_runs([str(run)])[0].training is None


def test_folders_may_hold_an_equals_sign(runs, tmp_path):
    run = Path(shutil.copytree(runs[0], tmp_path / "lr=0.01"))
    opened = open_runs([str(run), f"low={run}", f"b={runs[1]}"])
    assert [(each.name, each.folder) for each in opened] == [
        ("lr=0.01", run / "test"),
        ("low", run / "test"),
        ("b", runs[1] / "test"),
    ]


def test_two_runs_need_two_names(runs, tmp_path, capsys):
    assert call(report, f"a={runs[0]}", f"a={runs[1]}", "--out", tmp_path / "report") == 1
    assert "two runs are called a" in capsys.readouterr().err


def ranking(detections, true, duplicate, present, found, ap=0.5):
    arrays = np.array(detections), np.zeros(len(detections)), np.array(true, bool), np.array(duplicate, bool)
    return Ranking(0, ap, 0, present, found, *arrays)


def test_kinds_of_errors_equal_a_plain_count():
    """Against a count by hand over drawn rankings."""
    rng = np.random.default_rng(1)
    people, rankings, expected = rng.random(50) < 0.7, [], Counter()
    for _ in range(30):
        shown, present = rng.permutation(50)[:8], int(rng.integers(1, 8))
        found = int(rng.integers(0, present + 1))
        true, duplicate = np.arange(8) < found, np.arange(8) == 7
        rankings.append(ranking(shown, rng.permutation(true), duplicate & ~true, present, found))
        own, right = rankings[-1], 0
        for place in range(present):
            if own.true[place]:
                kind = "right"
            elif own.duplicate[place]:
                kind = "duplicate"
            else:
                kind = "wrong person" if people[own.detections[place]] else "background"
            expected[kind] += 1
            right += kind == "right"
        expected += Counter({"appearances": present, "ranked lower": found - right, "missed": present - found})
    counts = count_errors(rankings, people)
    assert {name: number for name, number in counts.items() if number} == dict(expected)
    assert counts["right"] + counts["ranked lower"] + counts["missed"] == counts["appearances"]
    assert kinds_of(rankings[0], people).count("right") == rankings[0].true.sum()


def test_detections_of_people_are_told_from_background():
    boxes = np.array([[0, 0, 10, 20], [0, 0, 10, 9], [50, 50, 60, 70], [0, 0, 10, 20]], np.float32)
    gallery = Gallery(boxes, np.zeros((4, 2), np.float32), np.array([3, 0, 1]))
    annotations = [{"boxes": np.array([[0, 0, 10, 20], [51, 50, 61, 70]])}, {"boxes": np.array([[0, 0, 1, 1]])}]
    annotations.append({"boxes": np.zeros((0, 4))})
    assert overlapping_people(annotations, gallery).tolist() == [True, False, True, False]


def test_heights_are_divided_into_groups_of_one_size():
    assert height_ranges(np.arange(1.0, 101)) == {
        "under 26 px": (0, 26),
        "26 to 50 px": (26, 50),
        "50 to 75 px": (50, 75),
        "75 px and more": (75, np.inf),
    }
    assert height_ranges(np.full(9, 40.0)) == {"all": (0, np.inf)}


def test_half_of_the_queries_are_the_worst_and_the_others_cover_the_rest():
    order = np.random.default_rng(1).permutation(100)
    analyses = [SimpleNamespace(rankings={"none": [ranking([], [], [], 1, 1, ap=rank / 100) for rank in order]})]
    chosen = order[choose_queries(analyses, 10)]
    assert chosen.tolist() == [0, 1, 2, 3, 4, 5, 28, 52, 75, 99]
    assert order[choose_queries(analyses, 1000)].tolist() == list(range(100))


def test_steps_that_were_trained_again_count_once(tmp_path):
    for start in (1, 3):
        with SummaryWriter(str(tmp_path / "tensorboard"), purge_step=start) as board:
            for step in range(start, start + 4):
                board.add_scalar("train/loss_total", 10 * start + step, step)
        time.sleep(1.1)  # files are read in the order of their names, which begin with the second they were opened in
    steps, values = read_curves(tmp_path)["train/loss_total"]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6] and values.tolist() == [11, 12, 33, 34, 35, 36]


@pytest.mark.slow
def test_choices_and_scenes_work_in_a_browser(made):
    """Which lists are shown, filtered and in order; a click opens the scene; nothing overflows on a phone."""
    api = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.goto((made / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        shown = page.locator(".query:visible .list:visible")
        assert shown.count() == 4 * 2
        precision = _precisions(shown)
        assert precision[::2] == sorted(precision[::2]), "worst first, by the left list"
        page.select_option("[name=left]", "3")
        page.select_option("[name=order]", "best")
        assert shown.first.get_attribute("data-list") == "3"
        precision = _precisions(shown)
        assert precision[::2] == sorted(precision[::2], reverse=True)
        page.select_option("[name=show]", "better")
        assert all(left < right for left, right in zip(*[iter(_precisions(shown))] * 2, strict=True))
        page.select_option("[name=show]", "all")
        page.fill("[name=find]", "no image is called so")
        assert shown.count() == 0 and page.inner_text("output") == "0 of 4"
        page.fill("[name=find]", "")
        page.locator(".list:visible button").first.click()
        page.wait_for_function("document.querySelector('dialog img').naturalWidth > 0")
        browser.close()
    assert not faults


def _precisions(lists) -> list[float]:
    return [float(each.get_attribute("data-ap")) for each in lists.all()]
