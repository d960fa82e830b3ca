"""Write annotations in the on-disk formats of CUHK-SYSU, PRW and MovieNet-CS: the inverse of the loaders.

Made for drawn and imported datasets, so that they train and test exactly as the published ones do.

Input, for every format:
  train, gallery  list of dicts `img_name`, `boxes` (n x 4 integers x1, y1, x2, y2 in pixels), `pids` (n; 1 and up are
                  identities, -1 is a person without one) and, for PRW, `cam_id` (1 ... 6, the digit in the name)
  queries         list of dicts `img_name`, `box` (x1, y1, x2, y2), `pid`; each is an annotated box of a gallery image

On disk boxes are x, y, w, h in the same pixels.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from datasets.matlab_write import cell, save, struct, text, unsigned, xywh
from utils.labels import UNLABELLED

FORMATS = ("cuhk_sysu", "prw", "movienet_cs")
PRW_UNLABELLED = -2
PRW_CAMERAS = range(1, 7)
CUHK_SIZES, CUHK_LARGE_SIZES = (50, 100), (500, 1000, 2000, 4000)
MOVIENET_SIZES, MOVIENET_LARGE_SIZES = (2000,), (4000, 10000)
MOVIENET_APPEARANCES = (10, 30, 50, 70, 100)
SCENE_FIELDS = ("imname", "idlocate", "ishard")


def write_annotations(fmt, root, train, gallery, queries, gallery_sizes=None):
    """Write every annotation and protocol file of format `fmt` ("cuhk_sysu", "prw" or "movienet_cs") below `root`.

    The gallery of a query holds all gallery images with the person, other than the query's own, and then images without
    it up to the size: drawn from the query's number, so that a larger gallery of CUHK-SYSU contains the smaller. Where
    fewer images exist, all are taken; where the person is in more images than the size, all of these are kept.

    `gallery_sizes`: protocols to write besides the smallest ones (CUHK-SYSU 50 and 100, MovieNet-CS 2000), which are
    always there; None takes the published sizes that the gallery can fill. PRW has no such protocols.

    Raises ValueError for an unknown format, a name used twice, a pid of 0, a query that is not an annotated box of the
    gallery, negative coordinates where the format is unsigned, or a PRW name that does not tell its camera.
    """
    _check_input(fmt, train, gallery, queries)
    root = Path(root)
    if fmt == "prw":
        if gallery_sizes is not None:
            raise ValueError("gallery_sizes: PRW searches all test frames and has no such protocols; leave it out")
        _write_prw(root, train, gallery, queries)
    elif fmt == "cuhk_sysu":
        _write_cuhk_sysu(root, train, gallery, queries, gallery_sizes)
    else:
        _write_movienet_cs(root, train, gallery, queries, gallery_sizes)


def image_folder(fmt, root) -> Path:
    """The folder that holds a dataset's images."""
    return Path(root) / {"cuhk_sysu": "Image/SSM", "prw": "frames", "movienet_cs": "Image"}[fmt]


def image_name(fmt, number, camera, sequence=1) -> str:
    """File name of image `number`: 1 and up, unique within its camera (CUHK-SYSU, whose names tell none: overall).

    `sequence` tells several recordings of one camera apart, in PRW's names only.
    """
    if fmt == "cuhk_sysu":
        return f"s{number}.jpg"
    if fmt == "prw":
        if camera not in PRW_CAMERAS:
            raise ValueError(f"camera {camera}: PRW's format has cameras 1 to 6")
        return f"c{camera}s{sequence}_{number:06d}.jpg"
    return f"tt{camera:07d}_shot_{number:06d}_img_0.jpg"


def _check_input(fmt, train, gallery, queries):
    if fmt not in FORMATS:
        raise ValueError(f"unknown format {fmt!r}: one of {', '.join(FORMATS)}")
    counts = Counter(item["img_name"] for item in [*train, *gallery])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"images named twice: {', '.join(twice[:5])}")
    for item in [*train, *gallery]:
        if any(pid != UNLABELLED and pid < 1 for pid in item["pids"]):
            raise ValueError(f"{item['img_name']}: pids are 1 and up, or {UNLABELLED} for a person without identity")
    annotated = {
        (item["img_name"], int(pid), *map(int, box))
        for item in gallery
        for box, pid in zip(item["boxes"], item["pids"], strict=True)
    }
    for query in queries:
        if query["pid"] <= 0 or (query["img_name"], int(query["pid"]), *map(int, query["box"])) not in annotated:
            raise ValueError(f"query {query} is not an annotated box of a gallery image with that identity")


def _write_cuhk_sysu(root, train, gallery, queries, gallery_sizes):
    annotation = root / "annotation"
    test = annotation / "test" / "train_test"
    save(annotation / "Images.mat", Img=_images([*train, *gallery]))
    save(annotation / "pool.mat", pool=cell([text(item["img_name"]) for item in gallery], (-1, 1)))
    identities = []
    for pid, scenes in _appearances(train).items():
        rows = [(text(name), unsigned(xywh(box)), unsigned(0)) for name, box in scenes]
        one = (text(f"p{pid}"), unsigned(len(rows)), struct(rows, SCENE_FIELDS, (1, -1)))
        identities.append(struct([one], ("idname", "nAppear", "scene"), (1, 1)))
    save(test / "Train.mat", Train=cell(identities, (-1, 1)))
    for size in _sizes(CUHK_SIZES, CUHK_LARGE_SIZES, gallery_sizes, len(gallery)):
        save(test / f"TestG{size}.mat", **{f"TestG{size}": _protocol(gallery, queries, size)})


def _images(items):
    rows = []
    for item in items:
        boxes = [(unsigned(xywh(box)), unsigned(0)) for box in item["boxes"]]
        rows.append((text(item["img_name"]), unsigned(len(boxes)), struct(boxes, SCENE_FIELDS[1:], (1, len(boxes)))))
    return struct(rows, ("imname", "nAppear", "box"), (1, -1))


def _appearances(train):
    """Image name and box of each appearance of each training identity, identities in rising order."""
    seen = {}
    for item in train:
        for box, pid in zip(item["boxes"], item["pids"], strict=True):
            if pid != UNLABELLED:
                seen.setdefault(int(pid), []).append((item["img_name"], box))
    return dict(sorted(seen.items()))


def _sizes(always, published, asked, num_gallery):
    extra = [size for size in published if size < num_gallery] if asked is None else asked
    return sorted({*always, *extra})


def _protocol(gallery, queries, size):
    """The 1 x Q struct (Query, Gallery) of a protocol file: galleries of `size` images."""
    holders = {}
    for item in gallery:
        for box, pid in zip(item["boxes"], item["pids"], strict=True):
            holders.setdefault(int(pid), {}).setdefault(item["img_name"], box)
    names, empty = [item["img_name"] for item in gallery], np.zeros((1, 0))
    rows = []
    for number, query in enumerate(queries):
        own, pid = query["img_name"], int(query["pid"])
        person = [(name, box) for name, box in holders[pid].items() if name != own]
        # One permutation per query, whatever the size: its prefixes are the galleries' negatives.
        others = [names[i] for i in np.random.default_rng(number).permutation(len(names))]
        others = [name for name in others if name != own and name not in holders[pid]][: max(0, size - len(person))]
        members = [(text(name), unsigned(xywh(box)), unsigned(0)) for name, box in person]
        members += [(text(name), empty, empty) for name in others]
        asked = (text(own), unsigned(xywh(query["box"])), unsigned(0), text(f"p{pid}"))
        query_struct = struct([asked], (*SCENE_FIELDS, "idname"), (1, 1))
        rows.append((query_struct, struct(members, SCENE_FIELDS, (1, len(members)))))
    return struct(rows, ("Query", "Gallery"), (1, -1))


def _write_movienet_cs(root, train, gallery, queries, gallery_sizes):
    annotation = root / "annotation"
    test = annotation / "test" / "train_test"
    save(annotation / "Images.mat", Img=_images([*train, *gallery]))
    for limit in MOVIENET_APPEARANCES:
        rows = []
        for pid, scenes in _appearances(train).items():
            cells = []
            for name, box in scenes[:limit]:
                # As in the published files, names are nested one cell deeper here and boxes stand upright (4 x 1).
                cells += [cell([text(name)], (1, 1)), unsigned(xywh(box)).T, unsigned(0)]
            rows += [text(f"p{pid}"), unsigned(len(scenes[:limit])), cell(cells, (-1, 3))]
        save(test / f"Train_app{limit}.mat", Train=cell(rows, (-1, 3)))
    for size in _sizes(MOVIENET_SIZES, MOVIENET_LARGE_SIZES, gallery_sizes, len(gallery)):
        pool = _pool(gallery, queries, size)
        save(annotation / f"pool_{size}.mat", pool=cell([text(item["img_name"]) for item in pool], (-1, 1)))
        save(test / f"TestG{size}.mat", **{f"TestG{size}": _protocol(pool, queries, size)})


def _pool(gallery, queries, size):
    """The gallery cut to `size` images: all that show somebody asked for, then further ones in the given order."""
    asked = {int(query["pid"]) for query in queries}
    needed = [item for item in gallery if asked.intersection(int(pid) for pid in item["pids"])]
    held = {item["img_name"] for item in needed}
    others = [item for item in gallery if item["img_name"] not in held]
    return needed + others[: max(0, size - len(needed))]


def _write_prw(root, train, gallery, queries):
    for split, items in (("train", train), ("test", gallery)):
        for item in items:
            name, camera = item["img_name"], item["cam_id"]
            if not name.startswith(f"c{camera}s"):
                raise ValueError(f"{name}: PRW's names begin with c<camera>s, and cam_id is {camera}")
            pids = [PRW_UNLABELLED if pid == UNLABELLED else int(pid) for pid in item["pids"]]
            rows = [[pid, *xywh(box)] for pid, box in zip(pids, item["boxes"], strict=True)]
            save(root / "annotations" / f"{name}.mat", box_new=np.array(rows, dtype=np.float64).reshape(-1, 5))
        names = [text(item["img_name"].removesuffix(".jpg")) for item in items]
        save(root / f"frame_{split}.mat", **{f"img_index_{split}": cell(names, (-1, 1))})
    lines = []
    for query in queries:
        box = " ".join(f"{value:.6f}" for value in xywh(query["box"]))
        lines.append(f"{query['pid']} {box} {query['img_name'].removesuffix('.jpg')}\r\n")
    (root / "query_info.txt").write_text("".join(lines), newline="")
