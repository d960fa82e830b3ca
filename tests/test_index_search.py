"""Searching an index: appearances, the people around, conditions, and what the program prints, writes and refuses."""

import json
import re
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="an index needs pymilvus: pip install -r requirements-index.txt")
pytest.importorskip("milvus_lite", reason="an index in a file needs milvus-lite: pip install -r requirements-index.txt")

from filming import NETWORK, WIDTH, StubSearcher, people_at, save_picture, save_video
from PIL import Image
from tiny import call, eager_model, picture, tiny_cfg

from engine.checkpoint import save_checkpoint
from engine.index import thresholds as index_thresholds
from engine.index.indexing import index_files
from engine.index.rows import Hit, SearchedImage, Source, Where
from engine.index.search import Query, appearances, rerank_hits, search
from engine.index.store import PeopleIndex
from engine.index.thresholds import thresholds_of
from engine.searcher import People, Searcher
from tools import index as index_program
from tools import search as program
from tools import searching
from utils.match_thresholds import MatchThresholds

SINCE_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="a date without dashes is read since Python 3.11")
VIDEO = Source("/film.mp4", 1, 1.0, "", start=0.0, fps=1.0)


def hit(position: float | None, similarity: float, left: float = 100.0, source: Source = VIDEO) -> Hit:
    """A person 100 pixels high."""
    box = (left, 50.0, left + 40, 150.0)
    frame = int(10 * (position or 0))
    return Hit(frame, similarity, source, frame, frame, position, position or 0.0, "", box, 0.9)


def spans(hits: list[Hit], thresholds: MatchThresholds | None = None) -> list[tuple]:
    found = appearances(sorted(hits, key=lambda each: -each.similarity), thresholds)
    return [(each.span, each.best.position, len(each.hits), each.verdict) for each in found]


def test_hits_that_follow_each_other_are_one_appearance():
    walk = [hit(second, 0.6 + 0.01 * second, 100 + 80 * second) for second in range(6)]
    again = [hit(second, 0.7, 100) for second in (20.0, 22.0, 25.0)]
    assert spans([*walk, *again]) == [((20.0, 25.0), 20.0, 3, ""), ((0, 5), 5, 6, "")]


def test_two_people_at_a_time_are_two_appearances():
    one = [hit(second, 0.8, 100 + 50 * second) for second in range(4)]
    other = [hit(second, 0.7, 400 - 50 * second) for second in range(4)]  # they pass each other
    assert sorted(spans([*one, *other])) == [((0, 3), 0, 4, "")] * 2


def test_somebody_less_alike_or_too_far_away_begins_another_appearance():
    near, far = hit(1.0, 0.8, 200), hit(1.0, 0.8, 900)
    assert len(spans([hit(0.0, 0.8), near])) == 1 and len(spans([hit(0.0, 0.8), far])) == 2
    assert len(spans([hit(0.0, 0.8), hit(1.0, 0.3)])) == 2


def test_the_best_hit_of_an_appearance_decides():
    thresholds = MatchThresholds(0.4, 0.7)
    assert spans([hit(0.0, 0.8), hit(1.0, 0.65), hit(9.0, 0.5), hit(19.0, 0.2)], thresholds) == [
        ((0.0, 1.0), 0.0, 2, "match"), ((9.0, 9.0), 9.0, 1, "possible"), ((19.0, 19.0), 19.0, 1, "unlikely"),
    ]  # fmt: skip


def test_what_follows_depends_on_how_often_frames_were_searched():
    slow = replace(VIDEO, fps=0.1)
    assert len(spans([hit(0.0, 0.8, source=slow), hit(20.0, 0.8, source=slow)])) == 1
    assert len(spans([hit(0.0, 0.8), hit(20.0, 0.8)])) == 2


def test_pictures_are_results_of_their_own():
    photo = replace(VIDEO, path="/a.jpg", fps=0.0)
    found = appearances([hit(None, 0.8, source=photo), hit(None, 0.7, source=photo)])
    assert [(each.span, each.best.similarity) for each in found] == [(None, 0.8), (None, 0.7)]
    assert appearances([]) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> str:
    """An index of two pictures in one camera, and a video in another one."""
    folder = tmp_path_factory.mktemp("Bilder & Filme")
    pictures = [save_picture(folder / f"p{level}.jpg", level) for level in (3, 6, 7)]
    film = save_video(folder / "film's Straße.mp4", [3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 3, 3, 5, 7], rate=1.0)
    with PeopleIndex(str(folder / "people.db"), NETWORK) as index:
        index_files(index, StubSearcher(), pictures, camera="A")
        index_files(index, StubSearcher(), [film], camera="Tür 3")
    return str(folder / "people.db")


def query(level: int, person: int) -> Query:
    people = people_at(level)
    unit = people.embeddings[person] / people.scores[person]
    return Query(unit, unit[None])


def test_results_of_several_queries(place):
    with PeopleIndex(place) as index:
        first, second = search(index, [query(3, 0), query(5, 0)], 3)
        assert [(Path(each.best.path).name, each.span) for each in first] == [
            ("p3.jpg", None), ("film's Straße.mp4", (0.0, 2.0)), ("film's Straße.mp4", (10.0, 11.0)),
        ]  # fmt: skip
        assert second[0].span == (12.0, 12.0) and second[0].best.similarity == pytest.approx(0.9, abs=1e-5)
        [[best]] = search(index, [query(3, 0)], 1, Where(camera="Tür 3", position=(5.0, None)))
        assert best.span == (10.0, 11.0)
        assert len(search(index, [query(3, 0)], 1000)[0]) < 40
        own = replace(query(3, 0), path=str(Path(place).parent / "p3.jpg"))
        assert search(index, [own], 1)[0][0].best.path.endswith(".mp4")


def test_company_decides_between_images(tmp_path):
    """Of two images with the same person, or one alike, the one in which the companion is, too, is the best."""
    axes = np.eye(WIDTH, dtype=np.float32)
    sources = [Source(f"/{name}.jpg", 1, 1.0, "", 0.0) for name in "ab"]
    boxes = np.array([[0, 0, 20, 60], [50, 0, 70, 60]], np.float32)
    alone = np.stack([0.8 * axes[0] + 0.6 * axes[4], axes[5]])
    together = np.stack([0.7 * axes[0] + 0.7 * axes[6], 0.9 * axes[1]])
    with PeopleIndex(str(tmp_path / "people.db"), NETWORK) as index:
        index.put_sources(sources)
        for source, vectors in zip(sources, (alone, together), strict=True):
            index.add([SearchedImage(source, People(boxes, np.ones(2, np.float32), vectors), [b"1", b"2"])])
        asked = Query(axes[0], axes[:2])
        hits = index.search(axes[:1], 10)[0]
        ranked = rerank_hits(index, asked, hits)
        assert [each.path for each in hits[:2]] == ["/a.jpg", "/b.jpg"]
        assert ranked[0].path == "/b.jpg" and ranked[0].box == (0, 0, 20, 60)
        assert ranked[0].similarity == pytest.approx(0.9) and ranked[1].similarity == pytest.approx(0.8)
        [plain], [company] = search(index, [asked], 1), search(index, [asked], 1, cbgm=True)
        assert plain[0].best.path == "/a.jpg" and company[0].best.path == "/b.jpg"


def people_seen_together(seed: int) -> People:
    """Four people who stand apart, and the first one again, found twice."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.5, 1, 4).astype(np.float32)
    vectors = rng.standard_normal((4, WIDTH)).astype(np.float32)
    vectors *= (scores / np.linalg.norm(vectors, axis=1))[:, None]
    boxes = np.array([[50 * left, 0, 50 * left + 40, 90] for left in range(4)], np.float32)
    twice = [0, 1, 2, 3, 0]
    return People(boxes[twice] + np.array([0, 0, 0, 0, 5], np.float32)[:, None], scores[twice], vectors[twice])


def test_thresholds_of_an_index_are_what_few_people_of_one_image_reach(tmp_path):
    images = [people_seen_together(seed) for seed in range(80)]
    sources = [Source(f"/{number}.jpg", 1, 1.0, "", 0.0) for number in range(80)]
    with PeopleIndex(str(tmp_path / "people.db"), NETWORK) as index:
        index.put_sources(sources)
        for count, (source, people) in enumerate(zip(sources, images, strict=True)):
            if count == 50:  # 9 pairs in each
                assert thresholds_of(index) is None
            index.add([SearchedImage(source, people, [b"jpeg"] * 5)])
        thresholds = thresholds_of(index)
    different = [
        float(image.embeddings[one] @ image.embeddings[other] / image.scores[one])
        for image in images
        for one in range(5)
        for other in range(5)
        if one % 4 != other % 4
    ]
    assert thresholds == pytest.approx(np.quantile(different, [0.99, 0.999]), abs=1e-5)


def test_many_frames_of_a_few_people_tell_no_thresholds(tmp_path):
    with PeopleIndex(str(tmp_path / "people.db"), NETWORK) as index:
        index.put_sources([VIDEO])
        frames = [SearchedImage(VIDEO, people_seen_together(1), [b"jpeg"] * 5, n, float(n)) for n in range(600)]
        index.add(frames)
        assert index.num_people() == 3000 < index_thresholds.SAMPLE
        assert thresholds_of(index) is None, "ten minutes, and nine pairs in one frame of each"


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Stands in for the network, with thresholds that tests can change; the current folder is empty."""
    opened = searching.OpenNetwork(StubSearcher(), NETWORK, MatchThresholds(0.5, 0.85))
    monkeypatch.setattr(searching, "open_searcher", lambda _: opened)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_program_prints_and_writes_what_it_finds(place, stub, capsys):
    photo = save_picture(stub / "Jörg 1.jpg", 3)
    words = ["--index", place, "--query", photo, "--person", 1, "--query", photo, "--box", 200, 40, 250, 160]
    assert call(program, *words, "--top", 3, "--json", "found.json", "--sheet", "sheet.png") == 0
    out = capsys.readouterr().out
    assert "Jörg 1.jpg, person at 20 40 70 160: 3 matches\n  1. 0.900  match  " in out
    assert re.search(r"film's Straße.mp4  0:0[012] \(0:00-0:02\)", out) and "Tür 3" in out
    first, second = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert first["box"] == [20, 40, 70, 160] and second["box"] == [200, 40, 250, 160]
    film = first["results"][1]
    assert (film["from"], film["to"], film["camera"], film["verdict"]) == (0.0, 2.0, "Tür 3", "match")
    assert [frame["frame"] for frame in film["frames"]] == [0, 1, 2] and film["similarity"] == pytest.approx(0.9)
    assert [row["verdict"] for row in second["results"]][:1] == ["possible"]  # a similarity of 0.7
    for number in (1, 2):
        assert Image.open(f"sheet-{number}.png").size[0] > 600


def test_people_to_choose_from_are_numbered(place, stub, capsys):
    photo = save_picture(stub / "photo.jpg", 3)
    words = ["--index", place, "--query", photo]
    assert call(program, *words, "--sheet", "sheet.jpg") == 0
    assert "3 people in " in capsys.readouterr().out and not Path("sheet.jpg").exists()
    assert call(program, *words) == 0, "its own picture is replaced"
    save_picture(stub / "photo-people.jpg", 2)
    assert call(program, *words) == 1
    assert "photo-people.jpg was not written by this program" in capsys.readouterr().err
    assert call(program, *words, "--person", 4) == 1
    assert "--person 4: only 3 people found" in capsys.readouterr().err


def test_photos_of_one_name_are_numbered_in_pictures_of_their_own(place, stub, capsys):
    photos = [save_picture(stub / folder / "photo.jpg", level) for folder, level in (("a", 2), ("b", 3))]
    assert call(program, "--index", place, "--query", photos[0], "--query", photos[1]) == 0
    assert "photo-1-people.jpg" in capsys.readouterr().out
    assert Path("photo-1-people.jpg").read_bytes() != Path("photo-2-people.jpg").read_bytes()


@pytest.mark.parametrize("text", ["2026-05-01", pytest.param("20260501", marks=SINCE_3_11)])
def test_a_date_alone_is_a_whole_day(text):
    day, given = datetime(2026, 5, 1), {}
    for option in ("--from", "--to"):
        args = program.parse_args(["--index", "people.db", "--query", "a", option, text])
        given[option] = (args.start or args.end)[1]
    assert given == {"--from": day.timestamp(), "--to": (day + timedelta(days=1, microseconds=-1)).timestamp()}


def test_nobody_above_the_threshold(place, stub, monkeypatch, capsys):
    strict = searching.OpenNetwork(StubSearcher(), NETWORK, MatchThresholds(0.95, 0.99))
    monkeypatch.setattr(searching, "open_searcher", lambda _: strict)
    photo = save_picture(stub / "photo.jpg", 5)
    assert call(program, "--index", place, "--query", photo, "--top", 2) == 0
    assert "nobody above the threshold; the best has 0.900" in capsys.readouterr().out
    unknown = searching.OpenNetwork(StubSearcher(), NETWORK, None)
    monkeypatch.setattr(searching, "open_searcher", lambda _: unknown)
    assert call(program, "--index", place, "--query", photo, "--to", "1990-01-01") == 0
    assert capsys.readouterr().out.endswith("the index holds nobody else of this camera and time\n")


def test_without_thresholds_of_the_network_those_of_the_index_count(place, stub, monkeypatch, capsys):
    plain = searching.OpenNetwork(StubSearcher(), NETWORK, None)
    monkeypatch.setattr(searching, "open_searcher", lambda _: plain)
    words = ["--index", place, "--query", save_picture(stub / "photo.jpg", 5), "--top", 2, "--json", "found.json"]
    assert call(program, *words) == 0
    out = capsys.readouterr().out
    assert "2 results" in out and "is not known: there are no thresholds" in out
    assert [row["verdict"] for row in json.loads(Path("found.json").read_text())[0]["results"]] == [None] * 2
    monkeypatch.setattr(index_thresholds, "LEAST_PAIRS", 1)
    assert call(program, *words) == 0
    out = capsys.readouterr().out
    assert "thresholds from this index: 0.1% of its pairs of different people are as similar as " in out
    assert all(row["verdict"] for row in json.loads(Path("found.json").read_text())[0]["results"])


def test_a_file_that_is_gone_is_shown_by_its_small_picture(stub, capsys):
    photo = save_picture(stub / "in" / "a.jpg", 1)
    index_words = ["--index", "people.db", "--ckpt", "best.pth"]
    assert call(index_program, photo, *index_words) == 0
    asked = photo.rename(stub / "moved.jpg")
    assert call(program, *index_words, "--query", asked, "--sheet", "sheet.jpg") == 0
    assert "a.jpg" in capsys.readouterr().out and Path("sheet.jpg").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "nobody.jpg"], "nobody was found in .*nobody.jpg"),
        (["--query", "none.jpg"], "there is no none.jpg"),
        (["--query", "one.jpg", "--camera", "B"], "--camera B: .* has no such camera, but A, Tür 3"),
        (["--query", "one.jpg", "--sheet", "one.jpg"], "one.jpg is one of the pictures that are searched"),
        (["--query", "one.jpg", "--sheet", "photo.png"], "photo.png was not written by this program"),
        (["--query", "one.jpg", "--from", "0:04", "--to", "0:02"], "--from is later than --to"),
        (["--query", "one.jpg", "--from", "2026-05-01", "--to", "1:30"], "--from and --to: give two dates, or two"),
        (["--query", "one.jpg", "--box", 1, 1, 900, 20], "give the left, top, right and bottom"),
    ],
)
def test_wrong_requests_are_told(place, stub, capsys, words, message):
    save_picture(stub / "nobody.jpg", 4)
    save_picture(stub / "one.jpg", 1)
    save_picture(stub / "photo.png", 1)
    assert call(program, "--index", place, *words) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_indexed_pictures_are_not_overwritten(place, stub, capsys):
    photo, indexed = save_picture(stub / "one.jpg", 1), Path(place).parent / "p3.jpg"
    before = indexed.read_bytes()
    assert call(program, "--index", place, "--query", photo, "--sheet", indexed) == 1
    assert "is one of the pictures that are searched" in capsys.readouterr().err and indexed.read_bytes() == before


def test_wrong_arguments(stub):
    for words in (["--person", 1, "--query", "a"], ["--query", "a", "--person", 1, "--box", 1, 2, 3, 4], [],
                  ["--query", "a", "--json", "best.pth"], ["--query", "a", "--sheet", "found.webp"],
                  ["--query", "a", "--from", "noon"], ["--query", "a", "--top", 0]):  # fmt: skip
        with pytest.raises(SystemExit):
            call(program, "--index", "people.db", *words)


def test_a_real_network_finds_what_it_finds_without_an_index_and_its_index_is_refused_to_another(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model, cfg = (
        eager_model(),
        tiny_cfg(MODEL__DETECTION_HEAD__SCORE_THRESH=0.01, MODEL__SEARCH_HEAD__SCORE_THRESH=0.01),
    )
    for name, factor in (("best.pth", 1.0), ("other.pth", 2.0)):
        state = {
            key: value * factor if "rescaler.weight" in key else value for key, value in model.state_dict().items()
        }
        save_checkpoint(tmp_path / name, {"model": state, "config": cfg.dump()})
    pixels = (picture(120, 160) * 255).byte().permute(1, 2, 0).numpy()
    for name in ("in/a.png", "copy.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(name)
    assert call(index_program, "in", "--index", "people.db", "--ckpt", "best.pth") == 0
    words = ["--index", "people.db", "--query", "copy.png", "--person", 1, "--json", "found.json"]
    assert call(program, *words, "--ckpt", "best.pth") == 0
    [asked] = json.loads(Path("found.json").read_text())
    twin = Searcher(model).search("copy.png", asked["box"], ["in/a.png"])
    assert len(asked["results"]) == len(twin) > 3
    for row, person in zip(asked["results"], twin, strict=True):
        assert row["similarity"] == pytest.approx(person.similarity, abs=1e-3)
        np.testing.assert_allclose((*row["box"], row["score"]), (*person.box, person.score), atol=1e-2)
    assert call(program, *words, "--ckpt", "other.pth") == 1
    assert "holds people as best.pth embeds them" in capsys.readouterr().err
    assert call(index_program, "in", "--index", "people.db", "--ckpt", "best.pth", "INPUT.MIN_SIZE", 64) == 1
    assert "was made with other options: INPUT.MIN_SIZE 64 instead of 96" in capsys.readouterr().err
