"""Write annotations in the on-disk formats of CUHK-SYSU, PRW and MovieNet-CS: the inverse of the loaders.

Made for drawn and imported datasets, so that they train and test exactly as the published ones do. Boxes are
x1, y1, x2, y2 in pixels here, and x, y, w, h in the same pixels on disk.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from datasets.cuhk_files import SCENE_FIELDS
from utils.errors import UserError
from utils.labels import UNLABELLED

FORMATS = ("cuhk_sysu", "prw", "movienet_cs")
USUAL_SIZES = {"cuhk_sysu": 100, "movienet_cs": 2000}
SIZES = {"cuhk_sysu": (50, 100, 500, 1000, 2000, 4000), "movienet_cs": (2000, 4000, 10000)}
"""Gallery sizes: those up to the usual one are always written, others where there are more gallery images."""
MOVIENET_APPEARANCES = (10, 30, 50, 70, 100)

Items = Sequence[dict[str, Any]]
"""Images: `img_name`, `boxes` n x 4 integers, `pids` n (1 and up, or -1 for a person without identity) and, for PRW,
`cam_id` (1 and up, the number in the name; PRW itself has 6). Queries: `img_name`, and `box` and `pid` of a box in a
gallery image."""


def write_annotations(fmt: str, root: str | Path, train: Items, gallery: Items, queries: Items) -> None:
    """Write every annotation and protocol file of format `fmt` ("cuhk_sysu", "prw" or "movienet_cs") below `root`.

    The gallery of a query holds all gallery images with the person, other than the query's own, and then images without
    it up to the size: drawn from the query's number, so that a larger gallery of CUHK-SYSU contains the smaller. Where
    fewer images exist, all are taken; where the person is in more images than the size, all of these are kept.

    Args:
        train, gallery, queries: of the three splits, see Items.

    Raises:
        UserError: an unknown format, a name used twice, a pid of 0, a query that is not an annotated box of the
            gallery, negative coordinates where the format is unsigned, or a PRW name without its camera.
    """
    _check_input(fmt, train, gallery, queries)
    if fmt == "prw":
        _write_prw(Path(root), train, gallery, queries)
        return
    annotation = Path(root, "annotation")
    test = annotation / "test/train_test"
    save(annotation / "Images.mat", Img=_images([*train, *gallery]))
    if fmt == "cuhk_sysu":
        save(annotation / "pool.mat", pool=_names(gallery))
        save(test / "Train.mat", Train=_cuhk_identities(train))
    else:
        for limit in MOVIENET_APPEARANCES:
            save(test / f"Train_app{limit}.mat", Train=_movienet_identities(train, limit))
    for size in SIZES[fmt]:
        if size > USUAL_SIZES[fmt] and size >= len(gallery):
            break
        pool = gallery
        if fmt == "movienet_cs":
            pool = _pool(gallery, queries, size)
            save(annotation / f"pool_{size}.mat", pool=_names(pool))
        save(test / f"TestG{size}.mat", **{f"TestG{size}": _protocol(pool, queries, size)})


def image_folder(fmt: str, root: str | Path) -> Path:
    """The folder that holds a dataset's images."""
    return Path(root) / {"cuhk_sysu": "Image/SSM", "prw": "frames", "movienet_cs": "Image"}[fmt]


def image_name(fmt: str, number: int, camera: int, sequence: int = 1) -> str:
    """File name of image `number`: 1 and up, unique within its camera (CUHK-SYSU, whose names have none: overall).

    `sequence` numbers the recordings of one camera, in PRW's names only.
    """
    if fmt == "cuhk_sysu":
        return f"s{number}.jpg"
    if fmt == "prw":
        return f"c{camera}s{sequence}_{number:06d}.jpg"
    return f"tt{camera:07d}_shot_{number:06d}_img_0.jpg"


def _check_input(fmt: str, train: Items, gallery: Items, queries: Items) -> None:
    if fmt not in FORMATS:
        raise UserError(f"unknown format {fmt!r}: one of {', '.join(FORMATS)}")
    counts = Counter(item["img_name"] for item in [*train, *gallery])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"images named twice: {', '.join(twice[:5])}")
    for item in [*train, *gallery]:
        if any(pid != UNLABELLED and pid < 1 for pid in item["pids"]):
            raise UserError(f"{item['img_name']}: pids are 1 and up, or {UNLABELLED} for a person without identity")
    annotated = {(item["img_name"], pid, *map(int, box)) for item in gallery for pid, box in _people(item)}
    for query in queries:
        if query["pid"] <= 0 or (query["img_name"], int(query["pid"]), *map(int, query["box"])) not in annotated:
            raise UserError(f"query {query} is not an annotated box of a gallery image with that identity")


def _people(item: dict[str, Any]) -> list[tuple[int, np.ndarray]]:
    return [(int(pid), box) for pid, box in zip(item["pids"], item["boxes"], strict=True)]


def _images(items: Items) -> np.ndarray:
    rows = []
    for item in items:
        boxes = [(unsigned(xywh(box)), unsigned(0)) for box in item["boxes"]]
        rows.append((text(item["img_name"]), unsigned(len(boxes)), struct(boxes, SCENE_FIELDS[1:])))
    return struct(rows, ("imname", "nAppear", "box"))


def _appearances(items: Items) -> dict[int, list[tuple[str, np.ndarray]]]:
    """Image name and box of each appearance of each identity, identities in rising order."""
    seen: dict[int, list[tuple[str, np.ndarray]]] = {}
    for item in items:
        for pid, box in _people(item):
            if pid != UNLABELLED:
                seen.setdefault(pid, []).append((item["img_name"], box))
    return dict(sorted(seen.items()))


def _names(items: Items) -> np.ndarray:
    return cell([text(item["img_name"]) for item in items])


def _scene(name: str, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of SCENE_FIELDS."""
    return text(name), unsigned(xywh(box)), unsigned(0)


def _cuhk_identities(train: Items) -> np.ndarray:
    identities = []
    for pid, scenes in _appearances(train).items():
        rows = [_scene(*scene) for scene in scenes]
        one = (text(f"p{pid}"), unsigned(len(rows)), struct(rows, SCENE_FIELDS))
        identities.append(struct([one], ("idname", "nAppear", "scene")))
    return cell(identities)


def _movienet_identities(train: Items, limit: int) -> np.ndarray:
    rows = []
    for pid, scenes in _appearances(train).items():
        cells = []
        for scene in scenes[:limit]:
            # As in the published files, names are nested one cell deeper here and boxes stand upright (4 x 1).
            name, box, hard = _scene(*scene)
            cells += [cell([name]), box.T, hard]
        rows += [text(f"p{pid}"), unsigned(len(scenes[:limit])), cell(cells, columns=3)]
    return cell(rows, columns=3)


def _protocol(gallery: Items, queries: Items, size: int) -> np.ndarray:
    """The 1 x Q struct (Query, Gallery) of a protocol file: galleries of `size` images."""
    names, empty, rows = [item["img_name"] for item in gallery], np.zeros((1, 0)), []
    holders = _appearances(gallery)
    for number, query in enumerate(queries):
        own, person = query["img_name"], {}
        for name, box in holders[int(query["pid"])]:
            if name != own:
                person.setdefault(name, box)
        # One permutation per query, whatever the size: its prefixes are the galleries' negatives.
        others = [names[i] for i in np.random.default_rng(number).permutation(len(names))]
        others = [name for name in others if name != own and name not in person][: max(0, size - len(person))]
        members = [_scene(*shown) for shown in person.items()]
        members += [(text(name), empty, empty) for name in others]
        asked = (*_scene(own, query["box"]), text(f"p{query['pid']}"))
        query_struct = struct([asked], (*SCENE_FIELDS, "idname"))
        rows.append((query_struct, struct(members, SCENE_FIELDS)))
    return struct(rows, ("Query", "Gallery"))


def _pool(gallery: Items, queries: Items, size: int) -> Items:
    """The gallery cut to `size` images: all that show somebody asked for, then further ones in the given order."""
    asked = {int(query["pid"]) for query in queries}
    needed = [item for item in gallery if asked.intersection(int(pid) for pid in item["pids"])]
    held = {item["img_name"] for item in needed}
    others = [item for item in gallery if item["img_name"] not in held]
    return [*needed, *others[: max(0, size - len(needed))]]


def _write_prw(root: Path, train: Items, gallery: Items, queries: Items) -> None:
    for split, items in (("train", train), ("test", gallery)):
        for item in items:
            name, camera = item["img_name"], item["cam_id"]
            if not name.startswith(f"c{camera}s"):
                raise UserError(f"{name}: PRW's names begin with c<camera>s, and cam_id is {camera}")
            rows = [[-2 if pid == UNLABELLED else pid, *xywh(box)] for pid, box in _people(item)]
            save(root / "annotations" / f"{name}.mat", box_new=np.array(rows, dtype=np.float64).reshape(-1, 5))
        names = [text(item["img_name"].removesuffix(".jpg")) for item in items]
        save(root / f"frame_{split}.mat", **{f"img_index_{split}": cell(names)})
    lines = []
    for query in queries:
        box = " ".join(f"{value:.6f}" for value in xywh(query["box"]))
        lines.append(f"{query['pid']} {box} {query['img_name'].removesuffix('.jpg')}\r\n")
    (root / "query_info.txt").write_text("".join(lines), newline="")


def cell(values: Sequence[Any], columns: int = 1) -> np.ndarray:
    """A Matlab cell array of `values`, row by row."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out.reshape(-1, columns)


def struct(rows: Sequence[Sequence[Any]], fields: Sequence[str]) -> np.ndarray:
    """A 1 x n Matlab struct array: one element per row, a row holds a value for each field."""
    return np.array([tuple(row) for row in rows], dtype=[(field, object) for field in fields])[None]


def text(value: str) -> np.ndarray:
    """A string, as a char array."""
    return np.array([value])


def unsigned(values: Any) -> np.ndarray:
    """The smallest unsigned integer type that fits, as Matlab's files have it: readers must widen before they add."""
    values = np.atleast_2d(np.asarray(values))
    if values.min(initial=0) < 0:
        raise UserError(f"negative value in {values.tolist()}: the format is unsigned, clip boxes to the image first")
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def xywh(box: Sequence[float]) -> list[int]:
    """x1, y1, x2, y2 to x, y, width, height, as plain integers."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def save(path: Path, **variables: np.ndarray) -> None:
    """Write `variables` to the .mat file `path`; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, do_compression=True)
