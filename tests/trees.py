"""Small annotation trees of the three formats, and changes to their files."""

import numpy as np
from PIL import Image
from scipy.io import loadmat, savemat

from datasets.check.annotations import Part, read_part
from datasets.writers import image_folder, image_name, write_annotations

NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW", "movienet_cs": "MovieNet-CS"}
PROTOCOLS = "annotation/test/train_test"
SIZE = (340, 120)
"""Width and height of the pictures."""
CUHK_LIKE = ["cuhk_sysu", "movienet_cs"]
TRAIN_FILES = {"cuhk_sysu": "Train.mat", "movienet_cs": "Train_app70.mat"}
QUERY_FILES = {"cuhk_sysu": "TestG50.mat", "movienet_cs": "TestG2000.mat"}


def scene(fmt, number, camera, people):
    """An image dict; `people` is a list of (pid, x): boxes 30 x 90 whose left edge is x."""
    boxes = [[x, 20, x + 30, 110] for _, x in people]
    return {
        "img_name": image_name(fmt, number, camera),
        "boxes": np.array(boxes, dtype=np.int32).reshape(-1, 4),
        "pids": np.array([pid for pid, _ in people], dtype=np.int32),
        "cam_id": camera,
    }


def small_tree(fmt, root, num_others=4):
    """Training images of identities 2, 5 and 9; identities 20 and 30 in the gallery, both seen by cameras 1 and 2."""
    train = [[(5, 10), (-1, 300)], [(5, 12)], [(2, 40), (9, 230)], [(2, 45)], []]
    train = [scene(fmt, number, 1, people) for number, people in enumerate(train, start=1)]
    gallery = [(1, [(20, 0), (30, 250)]), (1, [(20, 3)]), (2, [(20, 6), (-1, 90)]), (2, [(30, 200)])]
    gallery += [(1, [(-1, 9)])] * num_others
    gallery = [scene(fmt, number, camera, people) for number, (camera, people) in enumerate(gallery, start=10)]
    queries = [
        {"img_name": gallery[0]["img_name"], "box": gallery[0]["boxes"][1], "pid": 30},
        {"img_name": gallery[1]["img_name"], "box": gallery[1]["boxes"][0], "pid": 20},
    ]
    write_annotations(fmt, root, train, gallery, queries)
    return train, gallery, queries


def with_images(fmt, root, items):
    """Save a picture for each of the items (see `scene`), large enough for their boxes."""
    folder = image_folder(fmt, root)
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        Image.new("RGB", SIZE, (90, 120, 60)).save(folder / item["img_name"])


def rewrite(path, change):
    """Load the one variable of a .mat file, change it in place or return another, and store it."""
    content = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    ((name, value),) = content.items()
    changed = change(value)
    savemat(path, {name: value if changed is None else changed})


def read(fmt, root, split):
    """The findings of a split, as the check reads it, in this process."""
    return read_part(Part(NAMES[fmt], str(root), {}, split=split), lambda _: None).found


def of_kind(found, kind):
    return [finding for finding in found if finding.kind == kind]


def boxes_file(fmt, root, number, camera=1):
    """The file that holds the boxes of image `number`."""
    return root / ("annotation/Images.mat" if fmt != "prw" else f"annotations/{image_name(fmt, number, camera)}.mat")


def change_box(fmt, root, xywh):
    """Give the second box of the first training image, somebody without identity, other numbers."""

    def change(value):
        if fmt == "prw":
            value[1, 1:] = xywh
        else:
            value[0, 0]["box"][0, 1]["idlocate"] = np.array([xywh])

    rewrite(boxes_file(fmt, root, 1), change)


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
