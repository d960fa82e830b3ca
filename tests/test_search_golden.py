"""Loaders and scores against known answers: what the released evaluation gives on two real sets of annotations.

Skipped where the folder of known answers is missing (see conftest.py).
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from datasets import build_dataset
from utils.evaluation import evaluate_detection, evaluate_search
from utils.labels import UNLABELLED

SEED = 1
DIGEST_UNLABELLED = 5555
DIGEST_CUHK_QUERY = -100
NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW"}
SEARCHES = {
    "cuhk_sysu": [(f"g{size}", {"gallery_size": size}) for size in (50, 100)],
    "prw": [("all", {}), ("multiview", {"cross_camera": True})],
}


@pytest.fixture(scope="module")
def expected(shared_dir):
    return json.loads((shared_dir / "golden" / "search_expected.json").read_text())


@pytest.fixture(scope="module")
def drawn(shared_dir):
    """The module that draws detections and features from a seed."""
    spec = importlib.util.spec_from_file_location("search_inputs", shared_dir / "golden" / "search_inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[pytest.param("cuhk_sysu", marks=pytest.mark.slow), "prw"])
def tree(request, shared_dir, tmp_path_factory):
    """Name of a dataset, and its annotations on disk."""
    root = tmp_path_factory.mktemp(request.param)
    script = shared_dir / "real" / "build_annotations.py"
    subprocess.run([sys.executable, str(script), request.param, str(root)], check=True)
    return request.param, root


@pytest.fixture(scope="module")
def splits(tree):
    key, root = tree
    return key, {split: build_dataset(NAMES[key], root, split) for split in ("train", "gallery", "query")}


@pytest.fixture(scope="module")
def inputs(splits, drawn):
    """Detections and features of the gallery, features and context of the queries."""
    _, sets = splits
    gallery, query = sets["gallery"], sets["query"]
    drawn_gallery = [drawn.gallery_image(SEED, a["img_name"], a["boxes"], a["pids"]) for a in gallery.annotations]
    drawn_queries = []
    for number, row in enumerate(query.annotations):
        box, boxes = row["boxes"][0], gallery.annotations[gallery.image_index[row["img_name"]]]["boxes"]
        others = boxes[(boxes != box).any(axis=1)]
        drawn_queries.append(drawn.query(SEED, number, row["img_name"], box, int(row["pids"][0]), others))
    dets, feats = zip(*drawn_gallery, strict=True)
    return dets, feats, [query[0] for query in drawn_queries], [query[1:] for query in drawn_queries]


def as_digested(key, split, annotations):
    """Annotations with the labels under which the digests were taken."""
    relabelled = []
    for annotation in annotations:
        pids = np.where(annotation["pids"] == UNLABELLED, DIGEST_UNLABELLED, annotation["pids"])
        if (key, split) == ("cuhk_sysu", "query"):
            pids = np.full_like(pids, DIGEST_CUHK_QUERY)
        relabelled.append({**annotation, "pids": pids})
    return relabelled


@pytest.mark.parametrize("split", ["train", "gallery", "query"])
def test_counts_and_digests(split, splits, drawn, expected):
    key, sets = splits
    annotations = as_digested(key, split, sets[split].annotations)
    known = expected[key]["stats"][split]
    assert len(annotations) == known["images"]
    assert sum(len(annotation["boxes"]) for annotation in annotations) == known["boxes"]
    pids = np.unique(np.concatenate([annotation["pids"] for annotation in annotations]))
    assert len(pids) == known["pids"]
    if (key, split) != ("prw", "train"):  # whose digest was taken with numbers of its own
        assert drawn.digest(annotations) == known["sha256"]
    if split == "train":
        assert pids.tolist() == [*range(1, sets["train"].num_identities + 1), DIGEST_UNLABELLED], "no gaps"


def test_detection(splits, inputs, expected):
    key, sets = splits
    result = evaluate_detection(sets["gallery"], inputs[0])
    assert result["recall"] == pytest.approx(expected[key]["detection"]["recall"], abs=1e-9)
    assert result["ap"] == pytest.approx(expected[key]["detection"]["ap"], abs=1e-6)


@pytest.mark.filterwarnings("ignore:7 queries left out")  # of PRW's, nobody sees seven again in another camera
def test_search(splits, inputs, expected):
    key, sets = splits
    for name, options in SEARCHES[key]:
        for suffix, cbgm in (("", False), ("_cbgm", True)):
            known = expected[key].get(name + suffix)
            if known is None:
                continue
            result = evaluate_search(sets["gallery"], sets["query"], *inputs, cbgm=cbgm, **options)
            assert result["mAP"] == pytest.approx(known["mAP"], abs=1e-6), name + suffix
            top = [result["top1"], result["top5"], result["top10"]]
            assert top == pytest.approx(known["top"], abs=1e-6), name + suffix
            assert len(result["ap"]) == expected[key].get(f"{name}_queries", len(sets["query"]))
            assert result["ap"].mean() == pytest.approx(result["mAP"])
