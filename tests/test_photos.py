"""Photos as phones and people leave them: found, read upright; and output that never touches them."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.photos.files import find_photos
from tools.photos.output_folder import MANIFEST, OutputFolder
from tools.photos.wording import counted, drawable, headline, short_path, verdict
from utils.errors import UserError
from utils.images import ImageError, read_image, read_photo

ORIENTATION = 0x0112


def save(path: Path, size: tuple[int, int] = (30, 20), **options) -> Path:
    """An image whose left part is red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (20, 20, 200))
    image.paste((200, 20, 20), (0, 0, 10, size[1]))
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("orientation", "shape", "red"),
    [(1, (20, 30), (10, 2)), (3, (20, 30), (10, 28)), (6, (30, 20), (2, 10)), (8, (30, 20), (28, 10))],
)
def test_a_photo_is_read_upright(tmp_path, orientation, shape, red):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(path)
    assert photo.shape[:2] == shape and photo[red].argmax() == 0
    assert read_image(path).shape[:2] == (20, 30)


def test_a_photo_in_heif_format(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed (requirements-heif.txt)")
    heif.from_pillow(Image.open(save(tmp_path / "a.png"))).save(tmp_path / "a.HEIC")
    photo = read_photo(tmp_path / "a.HEIC")
    assert photo.shape == (20, 30, 3) and photo[10, 2].argmax() == 0


def test_without_pillow_heif_its_requirement_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ImageError, match="a.heic is in HEIF format: pip install -r requirements-heif.txt"):
        read_photo(tmp_path / "a.heic")


def test_photos_are_found_in_subfolders_and_other_files_counted(tmp_path):
    names = ["b.JPG", "a/ä ö.tif", "a/x.gif", "a/deep/y.heic", "z.webp"]
    for name in [*names, ".hidden.jpg", ".thumbnails/c.jpg", "film.MOV", "a/film.mov", "README"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found, others = find_photos([tmp_path])
    assert {file.relative_to(tmp_path).as_posix() for file in found} == set(names)
    assert others == Counter({".mov": 2, "no suffix": 1})
    named, others = find_photos([tmp_path / "b.JPG", tmp_path / "README", tmp_path / "a", tmp_path / "a" / "x.gif"])
    assert len(named) == len(set(named)) == 5 and others == {".mov": 1}
    with pytest.raises(UserError, match="there is no .*nowhere"):
        find_photos([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no images"):
        find_photos([tmp_path / "empty"])


def test_an_output_folder_is_replaced_as_a_whole(tmp_path):
    for names in (["one.txt", "sub/two.txt"], ["three.txt"]):
        out = OutputFolder(tmp_path / "out")
        for name in names:
            (out.part / name).parent.mkdir(exist_ok=True)
            (out.part / name).write_text(name)
        out.commit()
        out.discard()
        assert {f.relative_to(out.path).as_posix() for f in out.path.rglob("*") if f.is_file()} == {*names, MANIFEST}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    unfinished = OutputFolder(tmp_path / "out")
    (unfinished.part / "four.txt").touch()
    unfinished.discard()
    OutputFolder(tmp_path / "new" / "folder" / "out").discard()
    assert (tmp_path / "out" / "three.txt").exists() and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_output_folder_never_holds_anything_else(tmp_path):
    photo = save(tmp_path / "photos" / "a.jpg")
    before = photo.read_bytes()
    save(tmp_path / "file.jpg")
    OutputFolder(tmp_path / "mine").commit()
    save(tmp_path / "mine" / "added.jpg")
    damaged = OutputFolder(tmp_path / "damaged")
    damaged.commit()
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    for out, inputs, folders, reason in (
        ("photos", [], [], "holds files that this program did not write .a.jpg."),
        ("photos", [photo], [], "holds the picture"),
        ("photos/out", [], [tmp_path / "photos"], "lies in .*which is searched"),
        ("mine", [], [], "added.jpg"),
        ("file.jpg", [], [], "is a file"),
        ("damaged", [], [], "damaged"),
    ):
        with pytest.raises(UserError, match=reason):
            OutputFolder(tmp_path / out, inputs, folders)
    late = OutputFolder(tmp_path / "late")
    save(tmp_path / "late" / "b.jpg")
    with pytest.raises(UserError, match="b.jpg"):
        late.commit()
    assert photo.read_bytes() == before and (tmp_path / "late" / "b.jpg").exists()
    np.testing.assert_array_equal(read_image(tmp_path / "mine" / "added.jpg").shape, (20, 30, 3))


def test_words():
    assert (counted(1, "image"), counted(2, "image"), counted(0, "match", "matches")) == (
        "1 image",
        "2 images",
        "0 matches",
    )
    rows = [{"match": True, "similarity": 0.9}, {"match": False, "similarity": 0.3714}]
    assert headline(rows, 19) == "1 match in 19 images"
    assert headline(rows[1:], 19) == "nobody is similar enough; the best has 0.371"
    assert headline([], 1) == "nobody was found in 1 image"
    assert [verdict(True, right) for right in (None, True, False)] == ["", "right", "wrong"]
    assert [verdict(False, right) for right in (None, True, False)] == ["no match", "missed", "no match"]
    assert drawable("Köln, Größe, Ångström, né") == "Koln, Grosse, Angstrom, ne"


def test_a_file_is_named_with_the_folders_that_tell_it_from_others():
    files = [Path(name) for name in ("a/IMG_1.jpg", "a/b/IMG_1.jpg", "c/b/IMG_1.jpg", "a/x.jpg")]
    assert [short_path(file, files) for file in files] == ["a/IMG_1.jpg", "a/b/IMG_1.jpg", "c/b/IMG_1.jpg", "x.jpg"]
    assert short_path(Path("IMG_1.jpg"), [Path("IMG_1.jpg"), *files]) == "IMG_1.jpg"
