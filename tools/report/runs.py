"""The runs of a report: where a test wrote its scores, options and features, and where its network was trained."""

import json
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from datasets import PersonSearchDataset, open_split
from defaults import get_default_cfg, load_cfg
from engine.feature_files import Features, load_features
from engine.features import names_of
from utils.errors import UserError
from utils.options import flatten

OF_TEST = ("EVAL.", "INPUT.DATA", "MODEL.GALLERY_SCORE_THRESH")
"""Beginnings of the options that are shown as the test had them; all others as the training had them."""
OF_GALLERIES = ("CROSS_CAMERA", "GALLERY_SIZE")
"""Options of EVAL that decide which queries are scored, in which images."""
AGAIN = "run python -m tools.test again, with --features FILE"


@dataclass(frozen=True)
class Run:
    """A test, and the training of its network.

    Attributes:
        name: by which the report calls it.
        folder: of the test: metrics.json and config.yaml.
        metrics: content of metrics.json.
        cfg: options of the test, INPUT.DATA_ROOT being the folder that it read.
        training: folder of the training run, None where it is not known.
    """

    name: str
    folder: Path
    metrics: dict
    cfg: CfgNode
    training: Path | None

    @property
    def data(self) -> tuple[str, str]:
        """The dataset and its folder."""
        return self.metrics["dataset"], self.metrics["data"]

    def settings(self) -> dict[str, object]:
        """Every option by its dotted name, those of training as the training run had them."""
        tested = flatten(self.cfg)
        if self.training is None:
            return tested
        trained = flatten(load_cfg(self.training / "config.yaml"))
        return trained | {name: value for name, value in tested.items() if name.startswith(OF_TEST)}

    def features(self, gallery_set: PersonSearchDataset, query_set: PersonSearchDataset) -> Features:
        """What the network found; UserError where its file is gone, damaged, or of other images."""
        file = Path(self.metrics["features_file"])
        if not file.is_file():
            raise UserError(f"{self.folder / 'metrics.json'}: its features, {file}, are gone; {AGAIN}")
        return load_features(file, *names_of(gallery_set, query_set))


def open_runs(words: list[str]) -> list[Run]:
    """The runs named on a command line, as FOLDER or NAME=FOLDER.

    Raises:
        UserError: a folder holds no test that a report can be made from, two runs have one name, or they search
            different data or different galleries.
    """
    runs = [_open_run(word) for word in words]
    names = [run.name for run in runs]
    for name in {name for name in names if names.count(name) > 1}:
        raise UserError(f"two runs are called {name}: name them, as NAME=FOLDER")
    for run in runs[1:]:
        if run.data != runs[0].data:
            told = " and ".join(f"{each.name} of {each.data[0]} in {each.data[1]}" for each in (runs[0], run))
            raise UserError(f"all runs of a report must be tests on the same data, but {told}: make two reports")
        for option in OF_GALLERIES:
            first, other = runs[0].cfg.EVAL[option], run.cfg.EVAL[option]
            if first != other:
                told = f"EVAL.{option} is {first} in the test of {runs[0].name} and {other} in that of {run.name}"
                raise UserError(f"all runs of a report must search the same galleries, but {told}: make two reports")
    return runs


def open_sets(run: Run) -> tuple[PersonSearchDataset, PersonSearchDataset]:
    """The gallery and the query split that a run was tested on; DatasetError where they are gone or damaged."""
    return open_split(run.cfg, "gallery"), open_split(run.cfg, "query")


def compare_settings(runs: list[Run]) -> list[dict]:
    """A row for each option: `name`, `values` of all runs, and whether these `differ`, or one is `changed`."""
    defaults, settings = flatten(get_default_cfg()), [run.settings() for run in runs]
    rows = []
    for name, default in defaults.items():
        values = [each[name] for each in settings]
        differ, changed = any(value != values[0] for value in values), any(value != default for value in values)
        rows.append({"name": name, "values": values, "differ": differ, "changed": changed})
    return rows


def _open_run(word: str) -> Run:
    is_named = "=" in word and not Path(word).is_dir()  # names of folders, too, may hold a "="
    name, _, text = word.partition("=") if is_named else ("", "", word)
    given = Path(text)
    folder = next((path for path in (given, given / "test") if _is_test(path)), None)
    if folder is None:
        raise UserError(f"{given} holds no test: name a folder where tools.test wrote metrics.json, or {AGAIN}")
    metrics = _read_metrics(folder / "metrics.json")
    cfg = load_cfg(folder / "config.yaml", ["INPUT.DATA_ROOT", metrics["data"]])
    # The folder given may hold the training of another network than the one tested.
    places = [Path(metrics["checkpoint"]).parent] if metrics["checkpoint"] else [given, folder.parent]
    training = next((path for path in places if (path / "tensorboard").is_dir()), None)
    own = given.resolve()
    return Run(name or (own.parent if own.name == "test" else own).name, folder, metrics, cfg, training)


def _is_test(folder: Path) -> bool:
    """Whether a folder holds the metrics.json of a test, not that of a training run."""
    file = folder / "metrics.json"
    return file.is_file() and "detection_ap" not in _read_json(file)


def _read_metrics(file: Path) -> dict:
    metrics = _read_json(file)
    lacking = {"dataset", "data", "checkpoint", "detection", "same_person", "features_file"} - metrics.keys()
    if lacking or not file.with_name("config.yaml").is_file():
        raise UserError(f"{file} is not of this version's tools.test: {AGAIN}")
    if not metrics["features_file"]:
        raise UserError(f"{file}: this test kept no features; {AGAIN}")
    return metrics


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a metrics.json of tools.test; {AGAIN}")
    return content
