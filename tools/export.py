"""Write a trained network as an ONNX file, for onnxruntime, OpenVINO and other programs.

    python -m tools.export --ckpt outputs/seqnet_prw/best.pth --out seqnet.onnx [--people 32 --boxes 1]

The file takes images that are resized, normalised and padded already, and gives up to --people people of each, and the
embeddings of --boxes given boxes; its metadata say how. docs/export.md describes it. demo.py and tools.index take it in
place of a checkpoint.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/export.py`

from tools.common import add_config_arguments, check_options, new_parser, positive_int, run_program
from utils.errors import UserError

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from models.base import PersonSearchModel
    from models.fixed import FixedNetwork

LEAST_TORCH = "2.7"
"""Its exporter translates batch norms; 2.6's does not."""


def main(args: argparse.Namespace) -> None:
    """Export as the arguments say, and print what was written.

    Raises:
        OSError, UserError: see `engine.networks.open_network`; UserError where --out has another suffix, a part of the
            network cannot be exported, or a package is missing.
    """
    from engine.networks import open_network
    from models.build import FAMILIES

    if args.out.suffix != ".onnx":
        raise UserError(f"--out {args.out}: the name of the file must end in .onnx")
    check_packages()
    cfg, network = open_network(args.ckpt, args.cfg, args.opts)
    check_options(cfg)
    build_fixed = FAMILIES[cfg.MODEL.FAMILY].build_fixed
    if args.ckpt.suffix == ".onnx" or build_fixed is None:
        raise UserError(f"--ckpt {args.ckpt} cannot be exported: take a checkpoint of MODEL.FAMILY two_stage")
    twin = build_fixed(cfg, network.eval(), args.people)
    export(cfg, network, twin, args.boxes, args.out)
    size = args.out.stat().st_size / 2**20
    sys.stdout.write(
        f"{args.out}: {size:.0f} MiB; up to {twin.people} people an image, {args.boxes} given, embeddings of "
        f"{network.embedding_width} numbers\n"
    )


def check_packages() -> None:
    """Raise UserError where a package is missing that exporting needs, or torch is too old."""
    import torch

    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed: pip install -r requirements-export.txt")
    if torch.__version__ < LEAST_TORCH:
        raise UserError(f"exporting takes torch {LEAST_TORCH} or newer, this is {torch.__version__}")


def export(cfg: "CfgNode", network: "PersonSearchModel", twin: "FixedNetwork", boxes: int, out: Path) -> None:
    """Write the twin of a network to `out`, for `boxes` given boxes an image, with all that its use takes.

    Batch norms of the network are folded into convolutions first.
    """
    import torch

    from engine.exported import Description
    from engine.exporting import write_onnx
    from engine.networks import EXPORTED_AS, weights_digest
    from models.fast import fold_batch_norms

    preprocess, thresholds = network.preprocess, twin.thresholds
    description = Description(
        min_size=preprocess.min_size,
        max_size=preprocess.max_size,
        size_divisible=preprocess.size_divisible,
        pixels=cfg.MODEL.BACKBONE.PIXELS,
        people=twin.people,
        boxes=boxes,
        embedding=network.embedding_width,
        min_score=thresholds.min_score,
        nms_iou=thresholds.nms_iou,
        max_detections=thresholds.max_detections,
        weight_by_score=twin.weight_by_score,
        weights=weights_digest(network),
    )
    for module in network.inference_modules():
        fold_batch_norms(module)
    cfg.merge_from_list([word for pair in EXPORTED_AS.items() for word in pair])
    height, width = preprocess.padded_size(3, 4)
    example = torch.zeros(2, 3, height, width), torch.tensor([[height, width]] * 2).float(), torch.zeros(2, boxes, 4)
    write_onnx(twin.eval(), example, {"search": description.as_json(), "config": cfg.dump()}, out)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("export", __doc__)
    add = parser.add_argument
    add("--ckpt", type=Path, required=True, help="checkpoint of the network, of this project or a published one")
    add("--out", type=Path, required=True, metavar="FILE", help="ONNX file to write")
    people = "most people that are found in an image; each costs time, whether there is one or not (default: 32)"
    add("--people", type=positive_int, default=32, metavar="N", help=people)
    boxes = "boxes of query people that are embedded in one run (default: 1)"
    add("--boxes", type=positive_int, default=1, metavar="K", help=boxes)
    add_config_arguments(parser)
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
