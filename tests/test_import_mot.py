"""MOTChallenge sequences become datasets in PRW's format."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from datasets import build_dataset
from tools.common import run_program
from tools.import_mot.__main__ import import_mot, main, parse_args
from tools.import_mot.sequence import read_sequence
from tools.import_mot.split import SplitRules

WIDTH, HEIGHT = 64, 48


def make_sequence(folder, rows, length=8, extension=".jpg"):
    """A sequence of grey frames whose gt.txt holds `rows` (strings)."""
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    for frame in range(1, length + 1):
        Image.new("RGB", (WIDTH, HEIGHT), (frame, 90, 90)).save(folder / "img1" / f"{frame:06d}{extension}")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname=x\nimDir=img1\nframeRate=7\nseqLength={length}\n"
        f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt={extension}\n"
    )
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    return folder


def mot15_rows(track, frames, left=11, flag=1):
    return [f"{frame},{track},{left},6,12,30,{flag},-4.1,-7.3,0" for frame in frames]


def boxes_of(out, name):
    return loadmat(out / "annotations" / f"{name}.jpg.mat")["box_new"].tolist()


def frame_names(out, split):
    return [str(cell[0]) for cell in loadmat(out / f"frame_{split}.mat")[f"img_index_{split}"].ravel()]


@pytest.fixture
def sequence(tmp_path):
    """Person 3 in eight frames."""
    return make_sequence(tmp_path / "seq", mot15_rows(3, range(1, 9)))


def test_boxes_start_at_zero_and_are_cut_to_the_image(tmp_path):
    rows = mot15_rows(3, range(1, 9)) + mot15_rows(4, range(1, 9), left=-3) + mot15_rows(5, range(1, 9), left=61)
    rows += mot15_rows(6, [2, 6, 7], left=31)
    folder, out = make_sequence(tmp_path / "seq", rows), tmp_path / "out"
    import_mot([folder], out, SplitRules())
    assert frame_names(out, "train") == [f"c1s1_{frame:06d}" for frame in (1, 2, 3, 4)]
    assert frame_names(out, "test") == [f"c1s1_{frame:06d}" for frame in (5, 6, 7, 8)]
    # 4 columns of person 5 are inside: too small to be told apart.
    assert boxes_of(out, "c1s1_000001") == [[3, 10, 5, 12, 30], [4, 0, 5, 8, 30], [-2, 60, 5, 4, 30]]
    # Person 6 is seen once in training: without identity there.
    assert [boxes_of(out, f"c1s1_00000{frame}")[3][0] for frame in (2, 6)] == [-2, 6]


def test_queries_are_the_people_of_every_nth_gallery_image(tmp_path):
    rows = mot15_rows(3, range(1, 9)) + mot15_rows(4, range(1, 8), left=31) + mot15_rows(6, [5], left=45)
    folder, rules = (
        make_sequence(tmp_path / "seq", rows),
        {"train": ((1, 1), (2, 4)), "gallery": ((5, 8),), "stride": 3},
    )
    # Of frames 5 and 8; persons 4 and 6 are in no second gallery image.
    for name, options, expected in (
        ("out", rules | {"query_every": 1}, [(3, "005"), (3, "008")]),
        ("more", {"query_every": 3}, [(3, "005"), (4, "005"), (3, "008")]),
    ):
        queries = import_mot([folder], tmp_path / name, SplitRules(**options)).queries
        assert [(query["pid"], query["img_name"][8:11]) for query in queries] == expected
    assert frame_names(tmp_path / "out", "train") == ["c1s1_000001", "c1s1_000004"]


def test_mot15_flags_are_not_heeded_and_mot16_keeps_visible_pedestrians(tmp_path):
    old = read_sequence(make_sequence(tmp_path / "old", mot15_rows(3, [1]) + mot15_rows(4, [1, 2], flag=0)))
    assert (old.frames.tolist(), old.tracks.tolist()) == ([1, 1, 2], [3, 4, 4])
    rows = ["1,3,11,6,12,30,1,1,0.9", "1,4,11,6,12,30,0,1,0.9", "1,5,11,6,12,30,0,7,1", "1,6,11,6,12,30,1,1,0.05"]
    new = make_sequence(tmp_path / "new", rows + ["2,3,11,6,12,30,1,1,0.9"])
    assert read_sequence(new).tracks.tolist() == [3, 6, 3]
    import_mot([new], tmp_path / "out", SplitRules())
    assert boxes_of(tmp_path / "out", "c1s1_000001") == [[3, 10, 5, 12, 30]]


def test_several_sequences_keep_their_identities_apart(sequence, tmp_path):
    split = import_mot([sequence] * 3, tmp_path / "out", SplitRules(), cameras=[1, 2, 2])
    pids = {image["img_name"]: image["pids"].tolist() for image in split.train}
    assert (pids["c1s1_000001.jpg"], pids["c2s1_000001.jpg"], pids["c2s2_000001.jpg"]) == ([3], [6], [9])
    assert {image["cam_id"] for image in split.gallery} == {1, 2}
    with pytest.raises(ValueError, match="--cameras names 2 cameras for 3 sequences"):
        import_mot([sequence] * 3, tmp_path / "more", SplitRules(), cameras=[1, 2])


def test_an_id_may_be_one_person_in_all_sequences(tmp_path, capsys):
    first = make_sequence(tmp_path / "first", mot15_rows(3, range(1, 9)) + mot15_rows(4, [1, 2, 5], left=31))
    second = make_sequence(tmp_path / "second", mot15_rows(3, range(1, 9)) + mot15_rows(4, [5], left=31))
    call = [str(first), str(second), "--shared-ids", "--query-every", "4", "--out", str(tmp_path / "out")]
    assert run_program(main, parse_args(call)) == 0
    assert "4 queries (4 of them for somebody who is seen by another camera, too)" in capsys.readouterr().out
    train = build_dataset("PRW", tmp_path / "out", "train").annotations
    assert [item["pids"].tolist() for item in train] == [[1, 2], [1, 2], [1], [1]] + [[1]] * 4
    gallery, queries = (build_dataset("PRW", tmp_path / "out", split) for split in ("gallery", "query"))
    # Person 4 is in one image of each camera: in the other one's for each.
    found = [len(asked.positives) for asked in queries.galleries(gallery, cross_camera=True)]
    assert [(item["img_name"][:2], item["pids"][0]) for item in queries.annotations] == [
        ("c1", 3), ("c1", 4), ("c2", 3), ("c2", 4),
    ]  # fmt: skip
    assert found == [4, 1, 4, 1]


def test_images_are_linked_or_copied_and_become_jpeg(sequence, tmp_path):
    source = sequence / "img1" / "000001.jpg"
    for name, copy in (("linked", False), ("copied", True)):
        import_mot([sequence], tmp_path / name, SplitRules(), copy=copy)
        placed = tmp_path / name / "frames" / "c1s1_000001.jpg"
        assert placed.samefile(source) != copy
        assert placed.read_bytes() == source.read_bytes()
    png = make_sequence(tmp_path / "png", mot15_rows(3, range(1, 9)), extension=".png")
    import_mot([png], tmp_path / "jpeg", SplitRules())
    with Image.open(tmp_path / "jpeg" / "frames" / "c1s1_000004.jpg") as picture:
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - (4, 90, 90)).max() <= 3


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("gt/gt.txt", "1,3,11,six,12,30,1,0,0,0", "gt.txt, line 3: could not convert"),
        ("gt/gt.txt", "1,3,11,6,12", "gt.txt, line 3: 5 columns, and line 1 has 10"),
        ("gt/gt.txt", "9,3,11,6,12,30,1,0,0,0", "line 3: the frame is not one of 1 to 8"),
        ("gt/gt.txt", "1,3,11,6,12,30,1,0,0,0", "line 3: the frame has this id twice"),
        ("gt/gt.txt", "3,3,11,6,0,30,1,0,0,0", "line 3: the box has no area"),
        ("gt/gt.txt", "3,0,11,6,10,30,1,0,0,0", "line 3: the id is neither"),
        ("gt/gt.txt", "3,3,11,6,nan,30,1,0,0,0", "line 3: not a finite number"),
        ("seqinfo.ini", "seqLength=many", r"seqinfo.ini: .*option 'seqlength' in section 'Sequence' already exists"),
        ("seqinfo.ini", "seqLength", "seqinfo.ini: is not a section .* of KEY=VALUE lines"),
    ],
)
def test_a_broken_line_is_named(tmp_path, file, line, text):
    folder = make_sequence(tmp_path / "seq", mot15_rows(3, [1, 2]))
    with (folder / file).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(ValueError, match=text):
        read_sequence(folder)


def test_missing_files_and_frames_are_named(sequence, tmp_path):
    for rules, message in (({"gallery": ((5, 9),)}, "frames 5-9 asked for"), ({"gallery": ((4, 8),)}, "frame 4 would")):
        with pytest.raises(ValueError, match=message):
            import_mot([sequence], tmp_path / "out", SplitRules(**rules))
    (sequence / "img1" / "000005.jpg").unlink()
    with pytest.raises(ValueError, match=r"000005.jpg is missing \(1 images"):
        import_mot([sequence], tmp_path / "out", SplitRules())
    assert not (tmp_path / "out").exists()
    (sequence / "gt" / "gt.txt").unlink()
    with pytest.raises(ValueError, match="gt.txt: cannot be read"):
        read_sequence(sequence)


def test_command_line(sequence, tmp_path, capsys):
    call = [str(sequence), "--out", str(tmp_path / "out")]
    options = ["--train", "1-3,4-4", "--gallery", "5-8", "--query-every", "2"]
    assert run_program(main, parse_args([*call, *options])) == 0
    assert "4 training images with 1 identities, 4 gallery images, 2 queries" in capsys.readouterr().out
    read = build_dataset("PRW", tmp_path / "out", "train").annotations
    assert [item["pids"].tolist() for item in read] == [[1]] * 4
    assert run_program(main, parse_args(call)) == 1
    assert "already holds images" in capsys.readouterr().err


def test_pets(shared_dir, tmp_path):
    split = import_mot([shared_dir / "real" / "mot" / "PETS09-S2L1"], tmp_path, SplitRules(query_every=30))
    assert (len(split.train), len(split.gallery), len(split.queries)) == (150, 150, 34)
    assert sum(len(image["boxes"]) for image in split.train + split.gallery) == 1874
    assert {query["img_name"] for query in split.queries} == {f"c1s1_{f:06d}.jpg" for f in (151, 181, 211, 241, 271)}
