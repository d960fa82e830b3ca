"""What the programs that import annotations share: queries, images and the files of a dataset in PRW's format."""

import argparse
import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from datasets.writers import image_folder, write_annotations
from utils.errors import UserError
from utils.labels import UNLABELLED

JPEG_QUALITY = 95
MIN_APPEARANCES = 2

Item = dict[str, Any]
"""An image or query as `datasets.writers.write_annotations` takes it; images have `img_path` too, the file to copy."""


class Splits(NamedTuple):
    """The three splits of a dataset."""

    train: list[Item]
    gallery: list[Item]
    queries: list[Item]


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where a dataset goes, and how its images get there."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the dataset, made if missing")
    parser.add_argument("--copy", action="store_true", help="copy the images instead of linking them")


def queries_in(images: list[Item]) -> list[Item]:
    """Every box with an identity, as a query."""
    return [
        {"img_name": image["img_name"], "box": box, "pid": int(pid)}
        for image in images
        for box, pid in zip(image["boxes"], image["pids"], strict=True)
        if pid != UNLABELLED
    ]


def appearances(images: list[Item]) -> Counter[int]:
    """The number of images that show each identity."""
    return Counter(pid for image in images for pid in {int(pid) for pid in image["pids"]} - {UNLABELLED})


def seen_again(queries: list[Item], gallery: list[Item]) -> list[Item]:
    """The queries that ask for somebody who is in at least two gallery images."""
    seen = appearances(gallery)
    return [query for query in queries if seen[query["pid"]] >= MIN_APPEARANCES]


def write_dataset(splits: Splits, out: Path, copy: bool = False) -> None:
    """Write a dataset in PRW's format to `out`: its annotations, and its images linked or copied.

    Raises:
        UserError: an image file is missing, two would get one name, or `out` already holds images; nothing is written
            then.
    """
    frames = image_folder("prw", out)
    if frames.is_dir() and any(frames.iterdir()):
        raise UserError(f"{frames} already holds images: choose another --out, or delete it")
    images = splits.train + splits.gallery
    missing = [image["img_path"] for image in images if not image["img_path"].is_file()]
    if missing:
        raise UserError(f"{missing[0]} is missing ({len(missing)} images in all)")
    write_annotations("prw", out, *splits)
    frames.mkdir(parents=True, exist_ok=True)
    for image in tqdm(images, desc="images", unit="", disable=None):
        _place(image["img_path"], frames / image["img_name"], copy)


def _place(source: Path, target: Path, copy: bool) -> None:
    """Hard-link `source` at `target`; copy if requested or where a link is not possible; other formats become JPEG."""
    if source.suffix.lower() not in (".jpg", ".jpeg"):
        with Image.open(source) as image:
            image.convert("RGB").save(target, quality=JPEG_QUALITY)
        return
    if not copy:
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def summary(splits: Splits, out: Path) -> str:
    """What a dataset holds, in one line."""
    cameras = {image["img_name"]: image["cam_id"] for image in splits.gallery}
    seen: dict[int, set[int]] = {}
    for image in splits.gallery:
        for pid in image["pids"]:
            seen.setdefault(int(pid), set()).add(image["cam_id"])
    elsewhere = sum(len(seen[query["pid"]] - {cameras[query["img_name"]]}) > 0 for query in splits.queries)
    return (
        f"{out}: {len(splits.train)} training images with {len(appearances(splits.train))} identities, "
        f"{len(splits.gallery)} gallery images, {len(splits.queries)} queries "
        f"({elsewhere} of them for somebody who is seen by another camera, too)\n"
    )
