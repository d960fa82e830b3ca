"""Turn COCO-style annotations with a person id each into a person-search dataset in PRW's format.

    python -m tools.import_coco --train TRAIN.json --gallery TEST.json --images FOLDER --out DIR

Annotations hold the person in the field person_id, or in another one that --person-field names; there is no identity
where it is missing or negative. The camera is the number that a file's name begins with, as in c2s1_000151.jpg, and 1
where there is none; --camera-field or --camera-pattern say where else it is. Where all files have such names, these are
kept. Of each identity that is in two gallery images or more, the first box of each camera is a query (PRW's rule). The
dataset is then used as PRW is:

    python -m tools.train --cfg configs/mot_mobilenet_v2.yaml INPUT.DATA_ROOT DIR
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/import_coco`

from datasets.writers import image_name
from tools.common import add_traceback_argument, new_parser, run_program
from tools.import_coco.annotations import CocoFields, CocoImage, Label, read_coco
from tools.importing import Item, Splits, add_output_arguments, queries_in, seen_again, summary, write_dataset
from utils.errors import UserError
from utils.labels import UNLABELLED

PRW_NAME = re.compile(r"c(\d+)s\d+_\w+")


def main(args: argparse.Namespace) -> None:
    """Import as the arguments say, and print what came of it."""
    fields = CocoFields(args.person_field, args.camera_field, args.camera_pattern, args.category)
    folders = args.images or [args.train.parent, args.gallery.parent]
    if len(folders) > 2:
        raise UserError(f"--images names {len(folders)} folders: give one, or one for --train and one for --gallery")
    splits = split_images(read_coco(args.train, folders[0], fields), read_coco(args.gallery, folders[-1], fields))
    write_dataset(splits, args.out, args.copy)
    sys.stdout.write(summary(splits, args.out))


def split_images(train: list[CocoImage], gallery: list[CocoImage]) -> Splits:
    """Images of two files as a dataset.

    People and cameras get the numbers of `numbers_of`, people in each split for itself, as nobody is looked for in
    another one. Files keep their names where all have different ones as PRW's are; otherwise all get such names.

    Raises:
        UserError: an image is in both files, or twice in one.
    """
    taken: set[Path] = set()
    for image in (*train, *gallery):
        if image.path in taken:
            raise UserError(f"{image.path} comes twice in the files of --train and --gallery: leave it out of one")
        taken.add(image.path)
    cameras = numbers_of(image.camera for image in (*train, *gallery))
    names = _names([*train, *gallery], cameras)
    items: list[list[Item]] = []
    for images in (train, gallery):
        pids = numbers_of(person for image in images for person in image.people if person is not None)
        items.append([_item(names[image.path], image, cameras, pids) for image in images])
    queries: dict[tuple[int, int], Item] = {}
    for image in items[1]:
        for query in queries_in([image]):
            queries.setdefault((query["pid"], image["cam_id"]), query)
    return Splits(*items, seen_again([queries[key] for key in sorted(queries)], items[1]))


def numbers_of(labels: Iterable[Label]) -> dict[Label, int]:
    """A number of 1 and up for each label: itself where all are such numbers below 2^31, else its place in order."""
    known = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    if all(isinstance(label, int) and 0 < label < 2**31 for label in known):  # as readers of the dataset take
        return {label: label for label in known}
    return {label: place for place, label in enumerate(known, start=1)}


def _names(images: list[CocoImage], cameras: dict[Label, int]) -> dict[Path, str]:
    """The name of each image file in the dataset: its own where all are named as PRW's are, else all get new ones."""
    kept: set[str] = set()
    for image in images:
        named = PRW_NAME.fullmatch(image.path.stem)
        if named and int(named[1]) == cameras[image.camera]:
            kept.add(image.path.stem)
    if len(kept) == len(images):
        return {image.path: f"{image.path.stem}.jpg" for image in images}
    return {
        image.path: image_name("prw", number, cameras[image.camera]) for number, image in enumerate(images, start=1)
    }


def _item(name: str, image: CocoImage, cameras: dict[Label, int], pids: dict[Label, int]) -> Item:
    return {
        "img_name": name,
        "img_path": image.path,
        "boxes": image.boxes,
        "pids": [UNLABELLED if person is None else pids[person] for person in image.people],
        "cam_id": cameras[image.camera],
    }


def pattern(text: str) -> re.Pattern:
    """An argument that is a regular expression with a group."""
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    if not compiled.groups:
        raise argparse.ArgumentTypeError(f"{text!r} has no group in brackets, which would be the camera")
    return compiled


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    fields = CocoFields()
    parser = new_parser("import_coco", __doc__)
    add_traceback_argument(parser)
    add = parser.add_argument
    add("--train", type=Path, required=True, metavar="FILE", help="annotations of the training images")
    add("--gallery", type=Path, required=True, metavar="FILE", help="annotations of the images that are searched")
    folders = "folder of the images; a second one, where the gallery's are elsewhere (default: beside the annotations)"
    add("--images", type=Path, nargs="+", metavar="FOLDER", help=folders)
    add_output_arguments(parser)
    person = "field of an annotation that says who it is, as person_id or attributes.track (default: %(default)s)"
    add("--person-field", default=fields.person, metavar="FIELD", help=person)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--camera-field", metavar="FIELD", help="field of an image that says which camera took it")
    regular = r"regular expression, to be found in every file_name, whose first group is the camera, as 'cam(\w+)/'"
    where.add_argument("--camera-pattern", type=pattern, metavar="REGEX", help=regular)
    add("--category", metavar="NAME", help="category that is read (default: person, or the only one)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
