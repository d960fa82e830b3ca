"""Test a person-search network: python -m tools.test --cfg configs/cuhk_sysu.yaml [--ckpt FILE] [--cbgm] [--gt] ..."""

import argparse
import logging
import sys
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import torch
from yacs.config import CfgNode

from datasets import PersonSearchDataset, open_split
from engine.checkpoint import load_weights, read_checkpoint
from engine.devices import select_device
from engine.feature_files import Features, PartialResults, extraction_id, load_features, save_features
from engine.features import extract_features, names_of
from engine.scoring import Setting, check_galleries, score_search
from engine.searcher import Searcher
from engine.solver import precision
from models import build_model
from tools.common import add_config_arguments, load_options, run_program
from utils.distributed import all_cores, from_main, is_main, process_group
from utils.errors import UserError
from utils.evaluation import evaluate_detection
from utils.files import write_json
from utils.logging import format_table, set_up_logging

log = logging.getLogger("test")

Sets: TypeAlias = tuple[PersonSearchDataset, PersonSearchDataset]  # gallery, queries


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.test", description=__doc__.partition(":")[0])
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--ckpt", type=Path, help="checkpoint (default: best.pth in OUTPUT_DIR)")
    weights.add_argument("--untrained", action="store_true", help="random weights, an untrained baseline")
    parser.add_argument("--cbgm", action="store_true", help="score with CBGM re-ranking too")
    parser.add_argument("--gt", action="store_true", help="score with ground-truth boxes too")
    parser.add_argument(
        "--gallery-size", nargs="+", metavar="N", help="images in each gallery, -1: all (default: usual)"
    )
    parser.add_argument("--features", type=Path, metavar="FILE", help="read features from FILE; if missing, write them")
    parser.add_argument("--out", type=Path, help="folder of metrics.json (default: OUTPUT_DIR/test)")
    add_config_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    # Options may follow the sizes; argparse takes them for more sizes.
    words = args.gallery_size or []
    numbers = list(takewhile(lambda word: word.lstrip("-").isdigit(), words))
    if words and not numbers:
        parser.error(f"--gallery-size takes integers, not {words[0]!r}")
    args.gallery_size, args.opts = [int(number) for number in numbers], words[len(numbers) :] + args.opts
    return args


def _settings(args: argparse.Namespace, cfg: CfgNode) -> list[Setting]:
    sizes = args.gallery_size or [cfg.EVAL.GALLERY_SIZE]
    kinds = [{}] + [{"cbgm": True}] * args.cbgm + [{"ground_truth": True}] * args.gt
    common = {"cross_camera": cfg.EVAL.CROSS_CAMERA}
    return [Setting(gallery_size=size or None, **common, **kind) for size in sizes for kind in kinds]


def _features(
    args: argparse.Namespace, cfg: CfgNode, device: torch.device, sets: Sets
) -> tuple[Features | None, PartialResults | None]:
    """Features of the file or from the network, with its partial results; None in a process beside the main one."""
    if args.features and args.features.exists():
        log.info("scoring the features of %s, without the network", args.features)
        features = load_features(args.features, *names_of(*sets))
        if args.gt and not features.ground_truth_feats:
            raise UserError(f"{args.features} holds no ground-truth boxes: extract again, with --gt, to another file")
        return features, None
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    if not args.untrained:
        path = args.ckpt or Path(cfg.OUTPUT_DIR) / "best.pth"
        load_weights(model, from_main(lambda: read_checkpoint(path)), str(path))
    inputs = cfg.INPUT
    settings = (cfg.MODEL, inputs.MIN_SIZE, inputs.MAX_SIZE, inputs.BATCH_SIZE_TEST, cfg.EVAL.AMP, args.gt)
    partial = PartialResults(_out(args, cfg) / f"partial-{extraction_id(model, *sets, *settings)}")
    start = monotonic()
    amp = precision(cfg.EVAL.AMP, "EVAL.AMP")
    searcher = Searcher(
        model, device, inputs.BATCH_SIZE_TEST, inputs.NUM_WORKERS, amp, cfg.EVAL.COMPILE, inputs.MAX_PIXELS
    )
    features = extract_features(searcher, *sets, args.gt, partial)
    files = {row["img_path"] for split in sets for row in split.annotations}
    log.info("searched %d of %d images in %.1f s", len(files) - partial.num_found, len(files), monotonic() - start)
    if args.features and features is not None:
        save_features(args.features, features)
        partial.remove()
        log.info("features are in %s", args.features)
    return features, partial


def _out(args: argparse.Namespace, cfg: CfgNode) -> Path:
    return args.out or Path(cfg.OUTPUT_DIR) / "test"


def main(args: argparse.Namespace) -> None:
    """Test as the arguments say."""
    cfg = load_options(args)
    device = select_device(cfg.DEVICE)
    with process_group(device):
        set_up_logging(quiet=not is_main())
        sets = open_split(cfg, "gallery"), open_split(cfg, "query")
        settings = _settings(args, cfg)
        check_galleries(settings, *sets)
        features, partial = _features(args, cfg, device, sets)
        if is_main():
            _score(args, cfg, sets, features, settings)
            if partial is not None:
                partial.remove()


def _score(args: argparse.Namespace, cfg: CfgNode, sets: Sets, features: Features, settings: list[Setting]) -> None:
    start, name = monotonic(), cfg.INPUT.DATASET
    with all_cores():
        detection = evaluate_detection(sets[0], features.gallery_dets, cfg.EVAL.DETECTION_SCORE_THRESH)
        rows = [each.describe() | score_search(features, *sets, each, cfg.EVAL.BLOCK_MB) for each in settings]
    log.info("scored in %.1f s", monotonic() - start)
    out = _out(args, cfg) / "metrics.json"
    write_json(out, {"dataset": name, "detection": detection, "search": rows})
    sys.stdout.write(f"\n{name}: detection (%)\n{format_table([detection])}\n")
    sys.stdout.write(f"\n{name}: search (%)\n{format_table(rows)}\n\n")
    log.info("written to %s", out)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
