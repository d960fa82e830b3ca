"""Read COCO-style annotations that say who each person is.

Source of the format: https://cocodataset.org/#format-data. A file is a JSON object with the lists `images` (id,
file_name, width, height), `annotations` (image_id, bbox as x, y, width, height in pixels, category_id, iscrowd) and
`categories` (id, name). Which person an annotation shows is in a field that COCO does not have.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from utils.boxes import clip_boxes
from utils.errors import UserError
from utils.images import read_size
from utils.text import shortened

Label = int | str
"""A person or a camera, as a file has it."""
PERSON = "person"
CAMERA_IN_NAME = re.compile(r"c(\d+)s")
"""Of PRW's names, as c2s1_000151.jpg."""


@dataclass(frozen=True)
class CocoFields:
    """Where a file holds what is read. A dot in the name of a field leads into a nested object.

    Attributes:
        person: field of an annotation that says who it is.
        camera: field of an image that says which camera took it; None: `camera_pattern` says.
        camera_pattern: regular expression, to be found in each `file_name`, whose first group is the camera; None: the
            number that the file's name, without its folder, begins with as PRW's do, or 1.
        category: name of the category that is read; None: `person`, or the only one.
    """

    person: str = "person_id"
    camera: str | None = None
    camera_pattern: re.Pattern | None = None
    category: str | None = None


@dataclass
class CocoImage:
    """An image and its people.

    Attributes:
        path: the image file.
        camera: as the file has it.
        people: who each is; None is a person without identity.
        boxes: n x 4: x1, y1, x2, y2 in whole pixels, inside the image.
    """

    path: Path
    camera: Label
    people: list[Label | None] = field(default_factory=list)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), dtype=np.int32))


def read_coco(path: Path, folder: Path, fields: CocoFields) -> list[CocoImage]:
    """The images of a file in its order, and their people. Boxes outside their image and crowds are left out.

    Args:
        path: the JSON file.
        folder: of the images, to which `file_name` is relative.
        fields: what is read.

    Raises:
        OSError, UserError: a file is missing or not as it should be; the message names it, and the record at fault.
    """
    content = _read_json(path)
    images: dict[Label, tuple[CocoImage, int, int]] = {}
    for number, record in enumerate(content["images"], start=1):
        key, where = record.get("id"), f"{path}, image {number} of the list"
        if not _is_label(key) or not isinstance(record.get("file_name"), str):
            raise UserError(f"{where}: it needs an id and a file_name")
        if key in images:
            raise UserError(f"{where}: another image has its id, {key!r}")
        image = folder / record["file_name"]
        images[key] = (CocoImage(image, _camera(record, fields, where)), *_size(image, record, where))
    boxes: dict[Label, list[list[float]]] = {key: [] for key in images}
    for number, record in _people(content, path, fields):
        key, where = record.get("image_id"), f"{path}, annotation {number} of the list"
        if not _is_label(key) or key not in images:
            raise UserError(f"{where}: no image has the id {key!r}, its image_id")
        boxes[key].append(_corners(record.get("bbox"), where))
        images[key][0].people.append(_person(record, fields, where))
    for key, (image, height, width) in images.items():
        rounded = np.rint(np.array(boxes[key]).reshape(-1, 4))
        image.boxes = clip_boxes(rounded, width, height).astype(np.int32)
        inside = (image.boxes[:, 2:] > image.boxes[:, :2]).all(axis=1)
        image.boxes = image.boxes[inside]
        image.people = [person for person, kept in zip(image.people, inside, strict=True) if kept]
    return [image for image, _, _ in images.values()]


def _read_json(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also that of text which is not UTF-8
        raise UserError(f"{path}: is not a JSON file ({error})") from error
    if isinstance(content, dict):
        content.setdefault("categories", [])
    for key in ("images", "annotations", "categories"):
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f"{path}: is not in COCO's format: {key} is not a list of objects there")
    return content


def _is_label(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _value(record: dict[str, Any], name: str) -> Any:
    """A field; None where it is not there."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _camera(record: dict[str, Any], fields: CocoFields, where: str) -> Label:
    if fields.camera is not None:
        camera = _value(record, fields.camera)
        if not _is_label(camera):
            told = f"{fields.camera} is {camera!r}, not a number or name of a camera: see --camera-field"
            raise UserError(f"{where}: {told}")
        return camera
    name, pattern = record["file_name"], fields.camera_pattern
    if pattern is None:
        match = CAMERA_IN_NAME.match(PurePath(name).name)
        return 1 if match is None else int(match[1])
    match = pattern.search(name)
    if match is None or not match[1]:
        raise UserError(f"{where}: --camera-pattern {pattern.pattern!r} finds no camera in its file_name, {name}")
    return int(match[1]) if match[1].isdecimal() else match[1]


def _size(image: Path, record: dict[str, Any], where: str) -> tuple[int, int]:
    """Height and width of an image file, which are those of the record if it has any."""
    height, width = read_size(image)
    if (record.get("height", height), record.get("width", width)) != (height, width):
        told = f"{record.get('width')} x {record.get('height')}"
        raise UserError(f"{where}: it says {told}, and {image} has {width} x {height}: boxes would not fit")
    return height, width


def _people(
    content: dict[str, list[dict[str, Any]]], path: Path, fields: CocoFields
) -> list[tuple[int, dict[str, Any]]]:
    """The annotations of people, and the place of each in the list, from 1."""
    names = {category.get("id"): category.get("name") for category in content["categories"]}
    wanted = fields.category or PERSON
    chosen = {key for key, name in names.items() if name == wanted}
    if not chosen and (fields.category or len(names) > 1):
        listed = shortened([str(name) for name in names.values()]) or "none"
        raise UserError(f"{path}: no category is named {wanted}: name one with --category, of {listed}")
    people = [
        (number, record)
        for number, record in enumerate(content["annotations"], start=1)
        if (not chosen or record.get("category_id") in chosen) and not record.get("iscrowd")
    ]
    if people and all(_value(record, fields.person) is None for _, record in people):
        listed = ", ".join(sorted({name for _, record in people for name in record}))
        raise UserError(
            f"{path}: no annotation has the field {fields.person}, which would say who it is: name it with "
            f"--person-field, of {listed}"
        )
    return people


def _corners(box: object, where: str) -> list[float]:
    numbers = isinstance(box, list) and all(isinstance(value, int | float) for value in box)
    if not numbers or len(box) != 4 or not all(map(math.isfinite, box)):
        raise UserError(f"{where}: bbox is {box!r}, not four numbers x, y, width, height")
    x, y, width, height = box
    if min(width, height) <= 0:
        raise UserError(f"{where}: the box {box} has no area: mend it, or leave the annotation out")
    return [x, y, x + width, y + height]


def _person(record: dict[str, Any], fields: CocoFields, where: str) -> Label | None:
    """Who it is; None where the file says nothing or a number below 0."""
    person = _value(record, fields.person)
    if person is None or (_is_label(person) and person in ("", "-1")):
        return None
    if not _is_label(person):
        raise UserError(f"{where}: {fields.person} is {person!r}, not a whole number or a name")
    return None if isinstance(person, int) and person < 0 else person
