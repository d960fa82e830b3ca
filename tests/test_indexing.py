"""Filling an index: what is added, passed over, continued and removed; whatever interrupts it, the end is the same."""

import io
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="an index needs pymilvus: pip install -r requirements-index.txt")
pytest.importorskip("milvus_lite", reason="an index in a file needs milvus-lite: pip install -r requirements-index.txt")

from filming import NETWORK, StubSearcher, people_at, save_picture, save_video
from PIL import Image
from tiny import call

from engine.index import indexing
from engine.index.connection import Connection
from engine.index.indexing import index_files
from engine.index.rows import SearchedImage
from engine.index.scenes import is_as_indexed
from engine.index.sources import describe
from engine.index.store import CROPS, PEOPLE, PeopleIndex
from tools import index as program
from tools import searching
from utils.errors import UserError

FRAMES = [1, 2, 3, 5, 6, 7, 9]


@pytest.fixture
def folder(tmp_path):
    """Pictures, also in a subfolder, and a video of seven frames, one a second."""
    for name, level in (("a.jpg", 1), ("b.png", 2), ("Ä ö/c.jpg", 3), ("empty.jpg", 4)):
        save_picture(tmp_path / "in" / name, level)
    save_video(tmp_path / "in" / "film's Straße.mp4", FRAMES, rate=1.0)
    return tmp_path / "in"


def run(place: Path, folder: Path, searcher: StubSearcher, **options) -> indexing.Report:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with PeopleIndex(str(place), NETWORK) as index:
        return index_files(index, searcher, files, **options)


def content(place: Path) -> list[tuple]:
    """Everything about the people and sources of an index, and how many crops there are."""
    with PeopleIndex(str(place)) as index:
        rows = index._milvus.rows(PEOPLE, "", ["*"])
        crops = index._milvus.rows(CROPS, "", ["jpeg", "source"])
        people = [
            tuple(np.round(value, 5).tolist() if key == "vector" else value for key, value in sorted(row.items()))
            for row in rows
        ]
        return sorted(map(str, people)), sorted(map(str, crops)), index.sources()


def test_everything_in_a_folder_is_found(folder, tmp_path):
    place = tmp_path / "people.db"
    report = run(place, folder, StubSearcher(), camera="Tür 1")
    assert report.files == {"new": 5} and report.images == 4 + 7 and not report.failed
    assert report.people == 1 + 2 + 3 + sum(level % 4 for level in FRAMES)
    with PeopleIndex(str(place)) as index:
        assert index.num_people() == report.people
        assert {source.camera for source in index.sources()} == {"Tür 1"}
        people = people_at(3)
        units = people.embeddings / people.scores[:, None]
        for unit, score, box in zip(units, people.scores, people.boxes, strict=True):
            hit = index.search(unit[None], 1)[0][0]
            assert hit.path in (str(folder / "Ä ö/c.jpg"), str(folder / "film's Straße.mp4"))
            assert hit.similarity == pytest.approx(score, abs=1e-5) and hit.box == tuple(box)
            assert hit.position in (None, 2.0)
        crop = Image.open(io.BytesIO(index.crops([hit.id])[hit.id]))
        assert crop.height == indexing.CROP_HEIGHT * 144 // 160 or crop.height <= indexing.CROP_HEIGHT


def test_only_what_is_new_or_has_changed_is_searched_again(folder, tmp_path):
    place = tmp_path / "people.db"
    run(place, folder, StubSearcher(), fps=0.5)
    searcher = StubSearcher()
    assert run(place, folder, searcher).files == {"unchanged": 5} and searcher.searched == 0
    os.utime(folder / "a.jpg", (1e9, 1e9))
    save_picture(folder / "b.png", 7)
    save_picture(folder / "new.jpg", 1)
    report = run(place, folder, searcher)
    assert report.files == {"unchanged": 4, "changed": 1, "new": 1} and searcher.searched == 2
    with PeopleIndex(str(place)) as index:
        assert all(is_as_indexed(source) for source in index.sources())
        film = sum(level % 4 for level in FRAMES[::2])
        assert index.num_people() == 1 + 3 + 3 + 1 + film
    assert run(place, folder, StubSearcher(), fps=1.0).files == {"unchanged": 5, "changed": 1}
    assert run(place, folder, StubSearcher(), camera="B").files == {"changed": 6}
    fresh = tmp_path / "fresh.db"
    run(fresh, folder, StubSearcher(), fps=1.0, camera="B")
    assert content(fresh) == content(place)


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("IMG_20260501_143005.jpg", "2026-05-01 14:30:05"),
        ("PXL_20260501_143005123.jpg", "2026-05-01 14:30:05+00:00"),
        ("yard 20260501143005.jpg", "2026-05-01 14:30:05"),
        ("2026-05-01 14.30.05.jpg", "2026-05-01 14:30:05"),
        ("WhatsApp Image 2026-05-01 at 14.30.05.jpg", "2026-05-01 14:30:05"),
        ("2026-05-01T14-30-05_yard.jpg", "2026-05-01 14:30:05"),
        ("IMG-20260501-WA0012.jpg", None),
        ("20261301_143005.jpg", None),
        ("120260501143005.jpg", None),
    ],
)
def test_the_time_of_a_picture_is_in_its_name_unless_exif_data_have_it(tmp_path, name, time):
    path = save_picture(tmp_path / name, 1)
    os.utime(path, (1e9, 1e9))
    assert describe(path, "", 1.0).start == (datetime.fromisoformat(time).timestamp() if time else 1e9)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2025:12:31 23:59:58"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    assert describe(path, "", 1.0).start == datetime(2025, 12, 31, 23, 59, 58).timestamp()


def test_a_video_begins_at_the_time_in_its_name_or_ends_when_it_was_written(tmp_path):
    path = save_video(tmp_path / "film.mp4", [0, 0, 0, 0], rate=1.0)
    os.utime(path, (1e9, 1e9))
    assert describe(path, "", 1.0).start == pytest.approx(1e9 - 4)
    path = path.rename(tmp_path / "VID_20260501_143005.mp4")
    assert describe(path, "", 1.0).start == datetime(2026, 5, 1, 14, 30, 5).timestamp()


class Killed(BaseException):
    """As the process were killed: nobody cleans up."""


def test_whenever_it_is_killed_it_ends_as_if_it_was_not(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(indexing, "CHUNK", 2)
    whole, broken = tmp_path / "whole.db", tmp_path / "broken.db"
    run(whole, folder, StubSearcher())
    plain, writes = Connection.call, ("insert", "upsert", "delete")

    def killed_after(number: int):
        done = []

        def dying(self, method, *args, **kwargs):
            if method in writes and len(done) == number:
                raise Killed
            done.extend([method] if method in writes else [])
            return plain(self, method, *args, **kwargs)

        return dying

    kills = 0
    for number in (0, 1, 2, 3, 5, 4, 2, 7, 1, 6, 1000):
        monkeypatch.setattr(Connection, "call", killed_after(number))
        try:
            run(broken, folder, StubSearcher())
        except Killed:
            kills += 1
        monkeypatch.setattr(Connection, "call", plain)
    assert kills >= 6
    assert content(broken) == content(whole)


def test_a_stopped_run_keeps_what_it_found_and_goes_on(folder, tmp_path):
    whole, broken = tmp_path / "whole.db", tmp_path / "broken.db"
    run(whole, folder, StubSearcher())
    searched = 0
    for stop in (3, 4):
        searcher = StubSearcher(stop)
        with pytest.raises(KeyboardInterrupt):
            run(broken, folder, searcher)
        searched += searcher.searched
    searcher = StubSearcher()
    report = run(broken, folder, searcher)
    assert report.files["unchanged"] >= 3
    assert searched + searcher.searched <= 11 + indexing.CHUNK
    assert content(broken) == content(whole)


def test_files_that_cannot_be_read_are_told_and_tried_again(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    (folder / "text.mp4").write_text("no video")
    place = tmp_path / "people.db"
    report = run(place, folder, StubSearcher())
    assert report.files == {"new": 5} and report.images == 11
    assert {Path(path).name for path in report.failed} == {"broken.jpg", "text.mp4"}
    save_picture(folder / "broken.jpg", 3)
    report = run(place, folder, StubSearcher())
    assert report.files == {"unchanged": 5, "new": 1} and report.people == 3
    assert {Path(path).name for path in report.failed} == {"text.mp4"}


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        save_picture(tmp_path / "in" / name, 1)
    except OSError:
        pytest.skip("this file system takes no such names")
    save_picture(tmp_path / "in" / "b.jpg", 2)
    report = run(tmp_path / "people.db", tmp_path / "in", StubSearcher())
    assert report.files == {"new": 1} and report.people == 2
    assert [reason.partition("in/")[2] for reason in report.failed.values()] == [
        "caf\\udce9.jpg has a name that is not UTF-8: rename the file"
    ]


def test_what_another_process_is_adding_is_left_alone(folder, tmp_path):
    place, video = tmp_path / "people.db", folder / "film's Straße.mp4"
    with PeopleIndex(str(place), NETWORK) as index:
        other = describe(video, "", 1.0)
        index.put_sources([other])
        index.add([SearchedImage(other, people_at(3), [b"crop"] * 3, 0, 0.0)])
        index_files(index, StubSearcher(), [folder / "a.jpg"])
        assert index.num_people() == 3 + 1


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(searching, "open_searcher", lambda _: searching.OpenNetwork(StubSearcher(), NETWORK, None))


def test_the_program_adds_and_removes(folder, tmp_path, stub, capsys):
    place = tmp_path / "people.db"
    (folder / "notes.txt").write_text("x")
    assert call(program, folder, "--index", place, "--ckpt", "best.pth", "INPUT.NUM_WORKERS", 0) == 0
    out = capsys.readouterr().out
    assert "files: 5 new" in out and f"in 11 images; {place} holds" in out and "passed over: 1 .txt" in out
    assert call(program, "--index", place, "--remove", folder / "film's Straße.mp4", folder / "Ä ö") == 0
    assert f"removed 2 files; {place} holds 3 people" in capsys.readouterr().out
    assert call(program, "--index", place, "--remove", folder / "nowhere") == 1
    assert "holds nothing of" in capsys.readouterr().err
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    assert call(program, folder, "--index", place, "--ckpt", "best.pth") == 1
    out, err = capsys.readouterr()
    assert "files: 3 unchanged, 2 new" in out and "broken.jpg is not an image" in out
    assert "1 file could not be read (see above); the rest is indexed" in err


def test_wrong_arguments(folder, tmp_path, stub, capsys):
    place = tmp_path / "people.db"
    assert call(program, folder / "nowhere", "--index", place, "--ckpt", "best.pth") == 1
    assert "there is no" in capsys.readouterr().err and not place.exists()
    for words in ([], [folder, "--remove", folder], [folder, "--fps", "0"], [folder, "--camera", 'a"b'],
                  [folder, "--camera", 300 * "a"], ["--remove", folder, "--fps", "2"]):  # fmt: skip
        with pytest.raises(SystemExit):
            call(program, *words, "--index", place)
    with pytest.raises(UserError, match="there is no index"):
        program.main(program.parse_args(["--index", str(place), "--remove", str(folder)]))
    assert call(program, folder / "a.jpg", "--index", place, "--ckpt", "best.pth") == 0
    assert call(program, folder / "a.jpg", "--index", place, "--ckpt", "best.pth", "--approximate") == 1
    assert "is an exact index: --approximate is for a new one" in capsys.readouterr().err
