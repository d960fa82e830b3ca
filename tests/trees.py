"""Small annotation trees of the three formats, and changes to their files."""

import numpy as np
from PIL import Image
from scipy.io import loadmat, savemat

from datasets import SPLITS, build_dataset
from datasets.cuhk_files import SCENE_FIELDS
from datasets.writers import image_folder, image_name, save, struct, text, unsigned, write_annotations
from tools.check_dataset import check_dataset

NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW", "movienet_cs": "MovieNet-CS"}
PROTOCOLS = "annotation/test/train_test"
SIZE = 340, 120
"""Width and height of the pictures, which all boxes fit in."""
CUHK_LIKE = ["cuhk_sysu", "movienet_cs"]


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


def swapped(protocol):
    """CUHK-SYSU's protocol with the other way round: the first image that shows the person is where it is asked for."""
    rows = []
    for query, gallery in protocol.flat:
        first, *others = gallery.flat
        asked = struct([(*first, text("p"))], (*SCENE_FIELDS, "idname"))
        rows.append((asked, struct([tuple(query.flat[0])[:3], *others], SCENE_FIELDS)))
    return struct(rows, ("Query", "Gallery"))


def write_subsets(root):
    """CUHK-SYSU's test subsets, named as in the published files: the usual protocol, with a field more, and swapped."""
    protocol = loadmat(root / PROTOCOLS / "TestG100.mat")["TestG100"]
    occluded = struct([(*row, unsigned(1)) for row in protocol.flat], ("Query", "Gallery", "occlusion"))
    save(root / "annotation/test/subset/Occlusion.mat", Occlusion1=occluded)
    save(root / "annotation/test/subset/Resolution.mat", Test_Size=swapped(protocol))


def with_images(fmt, root, items, size=SIZE):
    """Save a picture for each of the items, see `scene`."""
    folder = image_folder(fmt, root)
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        Image.new("RGB", size, (90, 120, 60)).save(folder / item["img_name"])


def rewrite(path, change):
    """Load the one variable of a .mat file, change it in place or return another, and store it."""
    content = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    ((name, value),) = content.items()
    changed = change(value)
    savemat(path, {name: value if changed is None else changed})


def load(fmt, root, split):
    """The annotations of a split; of "galleries", those of the queries."""
    if split in SPLITS:
        return build_dataset(NAMES[fmt], root, split).annotations
    gallery_set, query_set = gallery_and_query(fmt, root)
    return list(query_set.galleries(gallery_set))


def gallery_and_query(fmt, root):
    """The two splits of a test."""
    return [build_dataset(NAMES[fmt], root, split) for split in ("gallery", "query")]


def annotation_faults(fmt, root, **options):
    """What the check finds in annotation files."""
    return check_dataset(NAMES[fmt], root, with_images=False, **options).faults


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
