"""Search a folder of pictures for one person.

    python demo.py --cfg CFG --ckpt CKPT --query IMG --box X1 Y1 X2 Y2 --gallery DIR --out DIR [KEY VALUE ...]

Writes to --out: `gallery/`, each gallery image with the people found, their similarities to the query and the best
match marked; `overview.jpg`, the query beside the top matches; `results.json`. Without --cfg and --ckpt it takes the
network that quickstart.sh trains, without --query the sample that quickstart.sh draws.
"""

import argparse
import json
import sys
from pathlib import Path

from defaults import load_cfg
from engine.checkpoint import load_weights
from engine.devices import select_device
from engine.gallery_search import GalleryRequest, search_gallery
from engine.searcher import Searcher
from engine.solver import precision
from models import build_model
from tools.common import add_traceback_argument, run_program
from utils.errors import UserError

QUICKSTART = Path("outputs/quickstart")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def list_images(folder: Path, leave_out: Path) -> list[Path]:
    """The image files of a folder, sorted by name, without the query's own. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"--gallery {folder} is not a folder: give one that holds images")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    files = [path for path in files if path.resolve() != leave_out.resolve()]
    if not files:
        raise UserError(f"--gallery {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) besides the query")
    return files


def read_request(args: argparse.Namespace) -> GalleryRequest:
    """What the options ask for. Raises UserError where one of them is missing."""
    given = [name for name in ("query", "box", "gallery") if getattr(args, name) is not None]
    if not given:
        folder = QUICKSTART / "data"
        file = folder / "demo.json"
        if not file.is_file():
            raise UserError(f"no sample at {file}: run `bash quickstart.sh` or give --query, --box and --gallery")
        sample = json.loads(file.read_text(encoding="utf-8"))
        gallery = [folder / name for name in sample["gallery"]]
        return GalleryRequest(folder / sample["query"], tuple(sample["box"]), gallery)
    if args.query and args.gallery and args.box is None:
        raise UserError("--query needs --box X1 Y1 X2 Y2: left, top, right and bottom edge of the person, in pixels")
    if len(given) < 3:
        raise UserError(f"--query, --box and --gallery go together, only --{', --'.join(given)} was given")
    return GalleryRequest(args.query, tuple(args.box), list_images(args.gallery, leave_out=args.query))


def read_network(args: argparse.Namespace) -> tuple[Path, Path]:
    """Config file and checkpoint: both of the command line, or both of quickstart.sh."""
    if (args.cfg is None) != (args.ckpt is None):
        raise UserError("--cfg and --ckpt go together: a checkpoint is read with the config it was trained with")
    if args.cfg is not None:
        return args.cfg, args.ckpt
    cfg, ckpt = QUICKSTART / "run" / "config.yaml", QUICKSTART / "run" / "best.pth"
    for file in (cfg, ckpt):
        if not file.is_file():
            raise UserError(f"no {file}: run `bash quickstart.sh` first, or give --cfg and --ckpt")
    return cfg, ckpt


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg", type=Path, help="config file of the network")
    add("--ckpt", type=Path, help="its checkpoint")
    add("--query", type=Path, metavar="IMG", help="image that shows the person")
    add("--box", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"), help="where, in pixels of the query image")
    add("--gallery", type=Path, metavar="DIR", help="folder of the images to search")
    add("--out", type=Path, default=Path("outputs/demo"), help="folder to write (default: %(default)s)")
    add("--top-k", type=int, default=9, metavar="N", help="matches in the overview (default: %(default)s)")
    add("--device", help="auto, cpu, cuda or cuda:N (default: the config's DEVICE)")
    add_traceback_argument(parser)
    add("opts", nargs="*", metavar="KEY VALUE", help="options over the config's, see defaults.py")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Build the network, search, print where the results are; raises UserError where gallery images failed."""
    request = read_request(args)
    cfg_file, checkpoint = read_network(args)
    cfg = load_cfg(cfg_file, args.opts)
    model = build_model(cfg)
    load_weights(model, checkpoint)
    device, inputs, amp = select_device(args.device or cfg.DEVICE), cfg.INPUT, precision(cfg.EVAL.AMP, "EVAL.AMP")
    searcher = Searcher(
        model, device, inputs.BATCH_SIZE_TEST, inputs.NUM_WORKERS, amp, cfg.EVAL.COMPILE, inputs.MAX_PIXELS
    )
    report(search_gallery(searcher, request, args.out, args.top_k), args.out)


def report(results: dict, out: Path) -> None:
    """Print the outcome; raises UserError, for an exit status of its own, where gallery images could not be read."""
    people = sum(len(image["boxes"]) for image in results["images"])
    sys.stdout.write(f"{people} people in {len(results['images'])} gallery images; best matches:\n")
    for rank, row in enumerate(results["ranked"][:5], start=1):
        sys.stdout.write(f"  {rank}. {row['similarity']:.3f}  {row['file']}\n")
    sys.stdout.write(f"see {out / 'overview.jpg'}, {out / 'gallery'} and {out / 'results.json'}\n")
    failed = [row["error"] for row in results["failed"]]
    if failed:
        raise UserError(f"{len(failed)} gallery images could not be read, the first: {failed[0]}")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
