"""Test a person-search network: python -m tools.test --cfg configs/cuhk_sysu.yaml [--ckpt FILE] [--cbgm] [--gt] ..."""

import argparse
import logging
import sys
from itertools import takewhile
from pathlib import Path
from time import monotonic

import torch
from yacs.config import CfgNode

from datasets import PersonSearchDataset, open_split
from engine.checkpoint import load_weights, read_checkpoint
from engine.devices import select_device
from engine.extraction import extract_features
from engine.feature_parts import FeatureParts, extraction_id
from engine.features import Features, load_features, save_features
from engine.scoring import Setting, check_galleries, score_detection, score_search
from engine.solver import precision
from models import build_model
from tools.common import add_config_arguments, load_options, run_program
from utils.distributed import all_cores, from_main, is_main, process_group
from utils.files import write_json
from utils.logging import format_table, set_up_logging

log = logging.getLogger("test")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.test", description=__doc__.partition(":")[0])
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--ckpt", type=Path, help="checkpoint (default: best.pth in OUTPUT_DIR)")
    weights.add_argument("--untrained", action="store_true", help="random weights: what chance gives")
    parser.add_argument("--cbgm", action="store_true", help="score with CBGM re-ranking too")
    parser.add_argument("--gt", action="store_true", help="score with ground-truth boxes too")
    parser.add_argument(
        "--gallery-size",
        nargs="+",
        metavar="N",
        help="images in each gallery, -1 for all (default: the usual)",
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="score the features of FILE, or write them there if it is missing"
    )
    parser.add_argument("--out", type=Path, help="folder of metrics.json (default: OUTPUT_DIR/test)")
    add_config_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    # Options may follow the sizes; argparse takes them for more sizes.
    words = args.gallery_size or []
    numbers = list(takewhile(lambda word: word.lstrip("-").isdigit(), words))
    if words and not numbers:
        parser.error(f"--gallery-size takes whole numbers, not {words[0]!r}")
    args.gallery_size, args.opts = [int(number) for number in numbers], words[len(numbers) :] + args.opts
    return args


def _settings(args: argparse.Namespace, cfg: CfgNode) -> list[Setting]:
    sizes = args.gallery_size or [cfg.EVAL.GALLERY_SIZE]
    kinds = [{}] + [{"cbgm": True}] * args.cbgm + [{"truth": True}] * args.gt
    return [
        Setting(gallery_size=size or None, cross_camera=cfg.EVAL.CROSS_CAMERA, **kind)
        for size in sizes
        for kind in kinds
    ]


def _extract(
    args: argparse.Namespace,
    cfg: CfgNode,
    device: torch.device,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
) -> tuple[Features | None, FeatureParts]:
    """Features from the network (None in a process beside the main one), and where their parts are."""
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    if not args.untrained:
        path = args.ckpt or Path(cfg.OUTPUT_DIR) / "best.pth"
        load_weights(model, from_main(lambda: read_checkpoint(path)), str(path))
    inputs = cfg.INPUT
    settings = (cfg.MODEL, inputs.MIN_SIZE, inputs.MAX_SIZE, inputs.BATCH_SIZE_TEST, cfg.EVAL.AMP, args.gt)
    parts = FeatureParts(_out(args, cfg) / f"parts-{extraction_id(model, gallery_set, query_set, *settings)}")
    start = monotonic()
    features = extract_features(
        model.to(device),
        gallery_set,
        query_set,
        device=device,
        batch_size=cfg.INPUT.BATCH_SIZE_TEST,
        num_workers=cfg.INPUT.NUM_WORKERS,
        amp=precision(cfg.EVAL.AMP, "EVAL.AMP"),
        compiled=cfg.EVAL.COMPILE,
        with_truth=args.gt,
        parts=parts,
    )
    files = {row["img_path"] for row in [*gallery_set.annotations, *query_set.annotations]}
    log.info("searched %d of %d images in %.1f s", len(files) - parts.found_earlier, len(files), monotonic() - start)
    return features, parts


def _out(args: argparse.Namespace, cfg: CfgNode) -> Path:
    return args.out or Path(cfg.OUTPUT_DIR) / "test"


def _features(
    args: argparse.Namespace,
    cfg: CfgNode,
    device: torch.device,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
) -> tuple[Features | None, FeatureParts | None]:
    """Features of the file, or from the network with the parts they came in; None in a process beside the main one."""
    names = (
        [annotation["img_name"] for annotation in gallery_set.annotations],
        [f"{query['img_name']} {query['boxes'][0].tolist()}" for query in query_set.annotations],
    )
    if args.features and args.features.exists():
        log.info("scoring the features of %s, without the network", args.features)
        features = load_features(args.features, *names)
        if args.gt and features.truth_feats is None:
            raise ValueError(f"{args.features} holds no ground-truth boxes: extract anew, with --gt, to another file")
        if args.cbgm and not _has_contexts(features):
            raise ValueError(f"{args.features} holds no contexts, which --cbgm needs: extract anew to another file")
        return features, None
    features, parts = _extract(args, cfg, device, gallery_set, query_set)
    if args.features and features is not None:
        save_features(args.features, features, *names)
        parts.remove()
        log.info("features are in %s", args.features)
    return features, parts


def _has_contexts(features: Features) -> bool:
    """Whether each query's image was searched too; the query itself is always in its context."""
    return features.query_context is not None and all(len(dets) for dets, _ in features.query_context)


def main(args: argparse.Namespace) -> None:
    """Test as the arguments say."""
    cfg = load_options(args)
    device = select_device(cfg.DEVICE)
    with process_group(device):
        set_up_logging(quiet=not is_main())
        gallery_set, query_set = open_split(cfg, "gallery"), open_split(cfg, "query")
        settings = _settings(args, cfg)
        check_galleries(settings, gallery_set, query_set)
        features, parts = _features(args, cfg, device, gallery_set, query_set)
        if not is_main():
            return
        start = monotonic()
        with all_cores():
            detection = score_detection(features, gallery_set, cfg.EVAL.DETECTION_SCORE_THRESH)
            rows = [
                setting.describe() | score_search(features, gallery_set, query_set, setting, cfg.EVAL.BLOCK_MB)
                for setting in settings
            ]
        log.info("scored in %.1f s", monotonic() - start)
        out = _out(args, cfg)
        write_json(out / "metrics.json", {"dataset": cfg.INPUT.DATASET, "detection": detection, "search": rows})
        if parts is not None:
            parts.remove()
        _print_tables(cfg.INPUT.DATASET, detection, rows)
        log.info("written to %s", out / "metrics.json")


def _print_tables(dataset: str, detection: dict[str, float], rows: list[dict]) -> None:
    sys.stdout.write(f"\n{dataset}: detection (%)\n{format_table([detection])}\n")
    sys.stdout.write(f"\n{dataset}: search (%)\n{format_table(rows)}\n\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
