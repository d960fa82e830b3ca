"""The index of people: the same promises on Milvus Lite, in a file, and on a Milvus server."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="an index needs pymilvus: pip install -r requirements-index.txt")
pytest.importorskip("milvus_lite", reason="an index in a file needs milvus-lite: pip install -r requirements-index.txt")

from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.storage.wal import WAL
from milvus_process import milvus_server
from pymilvus import MilvusClient

from engine.index import connection
from engine.index.rows import Network, SearchedImage, Source, Where
from engine.index.store import APPROXIMATE, CROPS, PEOPLE, SOURCES, PeopleIndex
from engine.searcher import People
from utils.errors import UserError

WIDTH = 16
NETWORK = Network("best.pth", "0a1b", WIDTH, {"MODEL.FAMILY": "two_stage"})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with milvus_server(tmp_path_factory.mktemp("milvus")) as address:
        yield address


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.slow)])
def place(request, tmp_path):
    """Where an index may be made: a file with a difficult name, or an empty server."""
    if request.param == "file":
        return str(tmp_path / "Leute & Straßen.db")
    address = request.getfixturevalue("server")
    client = MilvusClient(address)
    for name in (PEOPLE, CROPS, SOURCES):
        client.drop_collection(name)
    client.close()
    return address


def picture(name: str, **values) -> Source:
    return Source(f"/bilder/{name}", 10, 1.5e9, "ff", start=1000.0, **values)


def draw(source: Source, number: int, seed: int, frame: int = 0, position: float = 0.0) -> SearchedImage:
    """People with embeddings of random directions, whose lengths are their scores."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.5, 1, number).astype(np.float32)
    vectors = rng.standard_normal((number, WIDTH)).astype(np.float32)
    vectors *= (scores / np.linalg.norm(vectors, axis=1))[:, None]
    corners = rng.integers(0, 100, (number, 2))
    boxes = np.concatenate([corners, corners + (30, 80)], axis=1).astype(np.float32)
    crops = [f"jpeg {frame} {row}".encode() for row in range(number)]
    return SearchedImage(source, People(boxes, scores, vectors), crops, frame, position)


def fill(index: PeopleIndex) -> list[SearchedImage]:
    """Thirty pictures, some without people, and a video of ten frames."""
    sources = [picture(f"Ä {number}.jpg", camera="Köln" if number % 2 else "") for number in range(30)]
    video = picture("film's.mp4", fps=2.0, camera="Tür 3")
    images = [draw(source, number % 4, number) for number, source in enumerate(sources)]
    images += [draw(video, 3, 100 + frame, frame=12 * frame, position=frame / 2) for frame in range(10)]
    index.put_sources([*sources, video])
    index.add(images)
    index.put_sources([replace(source, done=1, complete=True) for source in sources])
    index.put_sources([replace(video, done=109, complete=True)])
    return images


def flat(images: list[SearchedImage]) -> list[tuple]:
    """Source, frame, box, score and embedding of each person."""
    return [
        (image, people.boxes[row], people.scores[row], people.embeddings[row], image.crops[row])
        for image in images
        for people in [image.people]
        for row in range(len(people.scores))
    ]


def queries(number: int) -> np.ndarray:
    vectors = np.random.default_rng(7).standard_normal((number, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_search_is_the_order_of_inner_products(place):
    with PeopleIndex(place, NETWORK) as index:
        people = flat(fill(index))
        assert index.num_people() == len(people)
        asked = queries(3)
        found = index.search(asked, 20)
    truth = asked @ np.array([person[3] for person in people]).T
    for similarities, hits in zip(truth, found, strict=True):
        order = np.argsort(-similarities)[:20]
        np.testing.assert_allclose([hit.similarity for hit in hits], similarities[order], atol=1e-5)
        for hit, row in zip(hits, order, strict=True):
            image, box, score, _, _ = people[row]
            assert (hit.path, hit.frame, hit.camera) == (image.source.path, image.frame, image.source.camera)
            np.testing.assert_allclose((*hit.box, hit.score), (*box, score), rtol=1e-6)
            assert hit.position == (image.position if image.source.fps else None)
            assert hit.time == 1000 + image.position


def test_everything_is_there_when_it_is_opened_again(place):
    with PeopleIndex(place, NETWORK) as index:
        images = fill(index)
        before, sources = index.search(queries(2), 10), index.sources()
    with PeopleIndex(place) as index:
        assert index.network == NETWORK
        assert index.search(queries(2), 10) == before
        assert index.sources() == sources
        assert [source.path for source in sources] == sorted({image.source.path for image in images})
        assert all(source.complete for source in sources)
        assert index.source(sources[0].id) == sources[0]
        assert index.source(0) is None and index.source(12345) is None


def test_conditions(place):
    with PeopleIndex(place, NETWORK) as index:
        video = [image for image in fill(index) if image.source.fps][0].source

        def paths(where: Where) -> set:
            return {(hit.path, hit.position) for hit in index.search(queries(1), 100, where)[0]}

        every = paths(Where())
        assert len(paths(Where(camera="Köln"))) == 15 and paths(Where(camera="nowhere")) == set()
        assert paths(Where(camera="Tür 3")) == {(video.path, frame / 2) for frame in range(10)}
        assert paths(Where(time=(1001.0, 1002.0))) == {(video.path, time) for time in (1.0, 1.5, 2.0)}
        assert paths(Where(time=(None, 1000.0))) == {(path, time) for path, time in every if not time}
        assert paths(Where(position=(None, 0.5))) == {(video.path, 0.0), (video.path, 0.5)}
        assert index.search(queries(1), 3, Where(camera="Köln", time=(0.0, 999.0))) == [[]]


def test_people_of_an_image_with_embeddings_and_crops(place):
    with PeopleIndex(place, NETWORK) as index:
        images = fill(index)
        hits = index.search(queries(1), 5)[0]
        people = index.people_of([hit.image for hit in hits])
        crops = index.crops([hit.id for hit in hits])
    truth = {(image.source.path, image.frame): image for image in images}
    for hit in hits:
        image = truth[hit.path, hit.frame]
        found, vectors = people[hit.image]
        assert {each.box for each in found} == {tuple(box) for box in image.people.boxes.tolist()}
        for each, vector in zip(found, vectors, strict=True):
            row = [tuple(box) for box in image.people.boxes.tolist()].index(each.box)
            np.testing.assert_allclose(vector, image.people.embeddings[row], atol=1e-6)
            if each.id == hit.id:
                assert crops[hit.id] == image.crops[row]


def test_a_sample_has_all_people_of_some_images(place):
    with PeopleIndex(place, NETWORK) as index:
        assert index.sample(10) == {}
        images = fill(index)
        assert sum(len(hits) for hits, _ in index.sample(10**6).values()) == len(flat(images))
        some = index.sample(30)
        assert 5 <= sum(len(hits) for hits, _ in some.values()) <= 55
        whole = index.people_of(list(some))
        for image, (hits, vectors) in some.items():
            assert {each.id for each in hits} == {each.id for each in whole[image][0]}
            assert len(vectors) == len(hits)


def test_removed_sources_are_gone(place):
    with PeopleIndex(place, NETWORK) as index:
        images = fill(index)
        gone = [source for source in index.sources() if source.fps or source.path.endswith("7.jpg")]
        numbers = [hit.id for hit in index.search(queries(1), 100)[0] if hit.source in gone]
        assert numbers
        index.remove(gone)
        left = [image for image in images if image.source.path not in {each.path for each in gone}]
        assert index.num_people() == len(flat(left))
        assert len(index.sources()) == 31 - len(gone) == 27
        assert index.crops(numbers) == {}
        assert not {hit.source.id for hit in index.search(queries(1), 100)[0]} & {each.id for each in gone}


def test_what_an_interruption_left_is_dropped_and_can_be_added_again(place):
    with PeopleIndex(place, NETWORK) as index:
        video = picture("film.mp4", fps=1.0)
        frames = [draw(video, 2, frame, frame=10 * frame, position=frame) for frame in range(4)]
        index.put_sources([video])
        index.add(frames[:2])
        index.put_sources([replace(video, done=11)])
        index.add(frames[2:3])
    with PeopleIndex(place, NETWORK) as index:
        index.drop_unfinished(index.sources())
        assert {hit.frame for hit in index.search(queries(1), 10)[0]} == {0, 10}
        index.add(frames[2:])
        index.put_sources([replace(video, done=31, complete=True)])
        index.drop_unfinished(index.sources())
        assert index.num_people() == 8 == len({hit.id for hit in index.search(queries(1), 10)[0]})


def test_other_networks_and_options_are_refused_by_name(place):
    with PeopleIndex(place, NETWORK) as index:
        index.network.check_same(NETWORK, place)
        with pytest.raises(UserError, match=r"best.pth .*0a1b.* other.pth .*ffff"):
            index.network.check_weights(replace(NETWORK, name="other.pth", weights="ffff"), place)
        options = {"MODEL.FAMILY": "anchor_free", "MODEL.X": 1}
        index.network.check_weights(replace(NETWORK, options=options), place)
        with pytest.raises(UserError, match="with other options: MODEL.FAMILY anchor_free instead of two_stage; give"):
            index.network.check_same(replace(NETWORK, options=options), place)


def test_approximate_index_finds_most(place):
    with PeopleIndex(place, NETWORK, APPROXIMATE) as index:
        people = flat(fill(index))
        hits = index.search(queries(1), 10)[0]
    best = np.sort(np.array([person[3] for person in people]) @ queries(1)[0])[::-1][:10]
    assert sum(bool(np.isclose(hit.similarity, best, atol=1e-5).any()) for hit in hits) >= 8


def test_there_must_be_an_index(place):
    with pytest.raises(UserError, match="there is no index"):
        PeopleIndex(place)


def test_names_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"a file ending in \.db, or a server"):
        PeopleIndex(str(tmp_path / "people"), NETWORK)
    file = tmp_path / "text.db"
    file.write_text("no index")
    with pytest.raises(UserError, match="text.db cannot be used as an index"):
        PeopleIndex(str(file))
    with pytest.raises(UserError, match="http://127.0.0.1:9 .* is it running"):
        PeopleIndex("http://127.0.0.1:9")


def test_a_file_is_of_one_process_at_a_time(tmp_path):
    place = str(tmp_path / "people.db")
    code = f"""
from engine.index.rows import Network
from engine.index.store import PeopleIndex
index = PeopleIndex({place!r}, Network("best.pth", "0a1b", {WIDTH}))
print("open", flush=True)
input()
"""
    root = Path(__file__).resolve().parents[1]
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="people.db is in use by another process"):
            PeopleIndex(place)
    finally:
        other.communicate("\n")
    PeopleIndex(place).close()


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    place = str(tmp_path / "people.db")
    with PeopleIndex(place, NETWORK) as index:
        images = fill(index)
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"people.db: the disk is full; make room"):
            patch.setattr(WAL, "write_insert", full)
            index.add([draw(picture("more.jpg"), 3, 1)])
    with PeopleIndex(place) as index:
        assert index.num_people() == len(flat(images))


def test_a_server_that_goes_away_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", 0.5)
    server, database, port = start_server_in_thread(data_dir=str(tmp_path / "data"), host="127.0.0.1", port=0)
    with PeopleIndex(f"http://127.0.0.1:{port}", NETWORK) as index:
        fill(index)
        server.stop(grace=0).wait()
        database.close()
        for call in (index.num_people, index.sources, lambda: index.search(queries(1), 3)):
            with pytest.raises(UserError, match=f"the server http://127.0.0.1:{port} cannot be used"):
                call()
