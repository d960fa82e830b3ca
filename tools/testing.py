"""What tools.test does: search the images of a dataset, or read features from a file, and score them."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import torch
from yacs.config import CfgNode

from datasets import PersonSearchDataset, open_split, open_subsets
from defaults import load_cfg
from engine.checkpoint import load_weights, read_checkpoint
from engine.devices import select_device
from engine.feature_files import Features, PartialResults, extraction_id, load_features, save_features
from engine.features import extract_features, names_of
from engine.networks import options_of, search_settings
from engine.scoring import (
    Setting,
    check_galleries,
    columns_of,
    only_columns,
    score_filter,
    score_same_person,
    score_search,
    share_of_squared_norm,
)
from engine.searcher import Searcher
from models import build_model
from models.base import GalleryFilter, PersonSearchModel
from tools.common import check_options
from tools.thresholds import check_thresholds_out, checkpoint_path, format_thresholds, store_thresholds
from utils.distributed import all_cores, from_main, is_main, process_group
from utils.errors import UserError
from utils.evaluation import CompanionVoting, evaluate_detection, evaluate_detection_by_height
from utils.evaluation.filtering import KEPT
from utils.files import write_json, write_text
from utils.images import read_image
from utils.logging import format_table, set_up_logging

log = logging.getLogger("test")

Sets: TypeAlias = tuple[PersonSearchDataset, PersonSearchDataset]  # gallery, queries


def run_test(args: argparse.Namespace) -> None:
    """Test as the arguments of tools.test say."""
    device = select_device(load_cfg(args.cfg, args.opts).DEVICE)
    with process_group(device):
        set_up_logging(quiet=not is_main())
        check_thresholds_out(args)
        cfg, checkpoint, name = _read_options(args)
        sets = open_split(cfg, "gallery"), open_split(cfg, "query")
        subsets = open_subsets(cfg) if args.subsets else {}
        model = _network(cfg, checkpoint, name) if args.filter or not _is_saved(args.features) else None
        settings = _settings(args, cfg, model)
        check_galleries(settings, *sets)
        for subset in subsets.values():
            check_galleries([Setting()], sets[0], subset)
        searched = sets[0], _joined(sets[1], subsets.values())
        widths = _widths(cfg) if args.by_feature else {}
        features_file = str(args.features.resolve()) if args.features else None
        origin = {"data": str(sets[0].root.resolve()), "features_file": features_file} | _origin(checkpoint, name)
        if _is_saved(args.features):
            if is_main():
                features, origin = _load_features(args, searched), origin | _origin(None, None)
                _score(args, cfg, sets, subsets, features, settings, widths, origin)
            return
        _check_writable(args.features)
        features, partial = _extract(args, cfg, model, device, searched)
        if is_main():
            _score(args, cfg, sets, subsets, features, settings, widths, origin)
            partial.remove()


def _read_options(args: argparse.Namespace) -> tuple[CfgNode, dict | None, str]:
    """The options, and the checkpoint with its name; no checkpoint where none is needed."""
    given, path = load_cfg(args.cfg, args.opts), checkpoint_path(args)
    without_network = _is_saved(args.features) and not args.filter
    if not args.ckpt and not path.is_file() and not args.untrained and not without_network:
        raise UserError(f"no checkpoint at {path}: train first, or give --ckpt FILE")
    if args.untrained or (args.cfg and without_network):
        return check_options(given), None, ""
    checkpoint = from_main(lambda: read_checkpoint(path))
    return check_options(options_of(checkpoint, str(path), args.cfg, args.opts)), checkpoint, str(path)


def _is_saved(features: Path | None) -> bool:
    return features is not None and features.exists()


def _network(cfg: CfgNode, checkpoint: dict | None, name: str) -> PersonSearchModel:
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    if checkpoint is not None:
        load_weights(model, checkpoint, name)
    return model


def _settings(args: argparse.Namespace, cfg: CfgNode, model: PersonSearchModel | None) -> list[Setting]:
    if args.untrained:  # it detects nobody
        kinds = [{"ground_truth": True}]
    else:
        voting = CompanionVoting(cfg.EVAL.COMPANIONS.WEIGHT, cfg.EVAL.COMPANIONS.QUANTILE)
        rerankings = [{}] + [{"cbgm": True}] * args.cbgm + [{"voting": voting}] * args.companions
        if args.filter:
            rerankings.append({"gallery_filter": _filter(model)})
        kinds = rerankings + [{"ground_truth": True}] * args.gt
    common = {"cross_camera": cfg.EVAL.CROSS_CAMERA}
    sizes = args.gallery_size or [cfg.EVAL.GALLERY_SIZE]
    return [Setting(gallery_size=size or None, **common, **kind) for size in sizes for kind in kinds]


def _filter(model: PersonSearchModel) -> GalleryFilter:
    if model.gallery_filter is None:
        raise UserError("--filter: this network has no gallery filter (MODEL.FILTER.TYPE); leave it out")
    return model.gallery_filter


def _joined(queries: PersonSearchDataset, subsets: Iterable[PersonSearchDataset]) -> PersonSearchDataset:
    """The query split and the queries of subsets, which the network searches in one pass."""
    joint = copy(queries)
    joint.annotations = sum((subset.annotations for subset in subsets), queries.annotations)
    return joint


def _load_features(args: argparse.Namespace, sets: Sets) -> Features:
    log.info("scoring the features of %s, without searching", args.features)
    features = load_features(args.features, *names_of(*sets))
    if args.gt and not features.ground_truth_feats:
        raise UserError(f"{args.features} holds no ground-truth boxes: extract again, with --gt, to another file")
    if args.filter and not features.gallery_scenes:
        raise UserError(f"{args.features} is of a network without gallery filter: extract again to another file")
    return features


def _check_writable(file: Path | None) -> None:
    """Raise OSError, before the search, where the features could not be written after it."""
    if file is not None and is_main():
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()


def _extract(
    args: argparse.Namespace, cfg: CfgNode, model: PersonSearchModel, device: torch.device, sets: Sets
) -> tuple[Features | None, PartialResults]:
    """Features and their partial results on disk; no features in a process beside the main one."""
    with_ground_truth, inputs = args.gt or args.untrained, cfg.INPUT
    settings = (cfg.MODEL, inputs.MIN_SIZE, inputs.MAX_SIZE, inputs.BATCH_SIZE_TEST, cfg.EVAL.AMP, with_ground_truth)
    partial = PartialResults(_out(args, cfg) / f"partial-{extraction_id(model, *sets, *settings)}")
    start = monotonic()
    searcher = Searcher(model, device, read=read_image, **search_settings(cfg))
    features = extract_features(searcher, *sets, with_ground_truth, partial)
    files = {row["img_path"] for split in sets for row in split.annotations}
    log.info("searched %d of %d images in %.1f s", len(files) - partial.num_found, len(files), monotonic() - start)
    if args.features and features is not None:
        save_features(args.features, features)
        partial.remove()
        log.info("features are in %s", args.features)
    return features, partial


def _out(args: argparse.Namespace, cfg: CfgNode) -> Path:
    return args.out or Path(cfg.OUTPUT_DIR) / "test"


def _score(
    args: argparse.Namespace,
    cfg: CfgNode,
    sets: Sets,
    subsets: dict[str, PersonSearchDataset],
    features: Features,
    settings: list[Setting],
    widths: dict[str, int],
    origin: dict,
) -> None:
    start, name = monotonic(), cfg.INPUT.DATASET
    limits = cfg.MODEL.GALLERY_SCORE_THRESH, cfg.EVAL.BLOCK_MB
    plain = replace(settings[0], ground_truth=args.gt or args.untrained)
    with all_cores():
        own = features.in_order(*names_of(*sets))
        alone = _score_features(sets, own, plain, widths, *limits) if widths else []
        detected = sets[0], features.gallery_dets, cfg.EVAL.DETECTION_SCORE_THRESH
        detection, by_height = evaluate_detection(*detected), evaluate_detection_by_height(*detected)
        same_person = score_same_person(own, *sets, settings[0], *limits)
        filtered = [score_filter(own, *sets, each) for each in settings if each.gallery_filter is not None]
        rows = [each.describe() | score_search(own, *sets, each, *limits) for each in settings]
        for subset, queries in subsets.items():
            own = features.in_order(*names_of(sets[0], queries))
            for each in dict.fromkeys(replace(each, gallery_size=None) for each in settings):
                scores = score_search(own, sets[0], queries, each, *limits)
                rows.append(each.describe() | {"gallery": subset} | scores)
    log.info("scored in %.1f s", monotonic() - start)
    out = _out(args, cfg) / "metrics.json"
    scores = {"detection": detection, "detection_by_height": by_height, "search": rows}
    scores |= {"same_person": same_person, "filter": filtered, "features": alone}
    write_json(out, {"dataset": name, **origin, **scores})
    write_text(out.with_name("config.yaml"), cfg.dump())
    sys.stdout.write(f"\n{name}: detection (%)\n{format_table([detection])}\n\n{format_table(by_height)}\n")
    sys.stdout.write(f"\n{name}: search (%)\n{format_table(rows)}\n\n")
    if alone:
        setting = plain.describe()
        title = f"by one feature of the embedding alone, boxes {setting['boxes']}, gallery {setting['gallery']} (%)"
        sys.stdout.write(f"{title}\n{format_table(alone)}\n\n")
    thresholds = same_person["thresholds"]
    sys.stdout.write(f"similarities of the same person and of others\n{format_thresholds(thresholds)}\n\n")
    if filtered:
        title = f"images without the person below a filter's threshold that keeps {KEPT:.0%} of those with it (%)"
        sys.stdout.write(f"{title}\n{format_table(filtered)}\n\n")
    log.info("written to %s", out)
    if args.thresholds_out:
        store_thresholds(args, thresholds)


def _origin(checkpoint: dict | None, path: str | None) -> dict:
    """Where a network comes from, for metrics.json: its file, and the epochs it was trained for, where known."""
    epoch = checkpoint.get("epoch") if checkpoint and "config" in checkpoint else None
    file = str(Path(path).resolve()) if path else None
    return {"checkpoint": file, "epoch": epoch if isinstance(epoch, int) else None}


def _widths(cfg: CfgNode) -> dict[str, int]:
    """The widths of the features of the embedding; UserError where it is not made of several."""
    with torch.device("meta"):
        widths = build_model(cfg).embedding_widths
    if len(widths) < 2:
        raise UserError("--by-feature: the embedding of this network is not made of several features; leave it out")
    return widths


def _score_features(
    sets: Sets, features: Features, setting: Setting, widths: dict[str, int], score_thresh: float, block_mb: int
) -> list[dict]:
    """For each feature its share of the embedding and the scores of the search by it alone; rows of a table."""
    width = features.query_feats[0].shape[-1]
    if sum(widths.values()) != width:
        raise UserError(
            f"--by-feature: the network's features have {sum(widths.values())} dimensions in all, these embeddings "
            f"{width}: give the config that they were extracted with"
        )
    return [
        {"feature": name, "share of squared norm": share_of_squared_norm(features, columns)}
        | score_search(only_columns(features, columns), *sets, setting, score_thresh, block_mb)
        for name, columns in columns_of(widths).items()
    ]
