"""The web page's API: choosing, searching, what is served to whom, uploads that are refused, several users."""

import asyncio
import io
import os
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="an index needs pymilvus: pip install -r requirements-index.txt")
pytest.importorskip("milvus_lite", reason="an index in a file needs milvus-lite: pip install -r requirements-index.txt")
pytest.importorskip("fastapi", reason="the web page needs fastapi: pip install -r requirements-web.txt")
pytest.importorskip("uvicorn", reason="the web page needs uvicorn: pip install -r requirements-web.txt")
pytest.importorskip("httpx", reason="the tests of the web page need httpx: pip install -r tests/requirements.txt")

from fastapi.testclient import TestClient
from filming import save_picture
from PIL import Image
from serving import THRESHOLDS, SlowSearcher, fill, served, service_of
from tiny import call, eager_model, picture

from engine.index.indexing import index_files
from engine.index.rows import Network, Where
from engine.index.search import search
from engine.index.store import PeopleIndex
from engine.searcher import Searcher
from tools.serve import __main__ as program
from tools.serve import app as pages
from tools.serve import jobs
from tools.serve.app import STATIC, create_app, server_of
from tools.serve.jobs import Service

PASSWORD = "open sesame, please"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures, a video, and their index."""
    folder = tmp_path_factory.mktemp("Bilder & Filme")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    """Finds people of that index by a stand-in of a network."""
    with service_of(str(folder / "people.db"), SlowSearcher()) as service:
        yield service


@pytest.fixture
def client(service):
    """A browser without page."""
    with TestClient(create_app(service)) as client:
        yield client


def get(client: TestClient, path: str) -> dict:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def find(client: TestClient, **asked) -> list[dict]:
    answer = client.post("/api/searches", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def upload(client: TestClient, path: Path) -> dict:
    answer = client.post("/api/uploads", params={"name": path.name}, content=path.read_bytes())
    assert answer.status_code == 200, answer.text
    return answer.json()


def file_id(client: TestClient, name: str) -> str:
    [row] = get(client, f"files?text={name}")["files"]
    return row["id"]


def size_of(jpeg: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return image.size


def stored(service: Service) -> list[Path]:
    return sorted(Path(service._folder.name).iterdir())


def test_the_index_is_described(client, folder):
    assert get(client, "index") == {
        "people": 3 + 2 + 3 + 5 * 3 + 1 + 3, "files": 5, "cameras": ["A", "Tür 3"],
        "thresholds": {"possible": 0.5, "match": 0.85}, "upload_bytes": pages.UPLOAD_BYTES,
    }  # fmt: skip
    files = get(client, "files?limit=2&offset=1")
    assert files["total"] == 5 and [row["name"] for row in files["files"]] == ["p3.jpg", "p4.jpg"]
    film = get(client, f"files/{file_id(client, 'webm')}")
    assert (film["kind"], film["camera"], film["path"]) == ("video", "Tür 3", str(folder / "Tür & Tor.webm"))
    assert [frame["position"] for frame in film["frames"]] == [0, 1, 2, 10, 11, 12, 13]
    assert get(client, f"files/{file_id(client, 'p4')}")["frames"] == []
    [frame] = get(client, f"files/{file_id(client, 'p6')}")["frames"]
    assert frame["position"] is None
    scene = get(client, f"images/{frame['image']}")
    assert [person["box"] for person in scene["people"]] == [[20, 40, 70, 160], [110, 40, 160, 160]]
    assert size_of(client.get(f"/api/images/{frame['image']}/picture").content) == (320, 240)
    crop = client.get(f"/api/people/{scene['people'][0]['person']}/crop")
    assert crop.headers["content-type"] == "image/jpeg" and size_of(crop.content)[1] <= 160


def test_a_person_of_an_upload_is_found(client, tmp_path):
    shown = upload(client, save_picture(tmp_path / "Jörg 1.png", 3))
    assert shown["name"] == "Jörg 1.png" and len(shown["people"]) == 3
    assert get(client, f"uploads/{shown['upload']}") == shown
    assert size_of(client.get(f"/api/uploads/{shown['upload']}/picture").content) == (320, 240)
    results = find(client, upload=shown["upload"], box=shown["people"][0]["box"], top=3)
    seen = [(row["file"]["name"], row["verdict"], [hit["position"] for hit in row["seen"]]) for row in results]
    assert seen == [
        ("p3.jpg", "match", [None]), ("Tür & Tor.webm", "match", [0, 1, 2]), ("Tür & Tor.webm", "match", [10, 11]),
    ]  # fmt: skip
    assert results[0]["similarity"] == pytest.approx(0.9, abs=1e-3) and results[0]["best"]["box"] == [20, 40, 70, 160]


def test_the_next_search_starts_from_a_result_and_filters_hold(client, service):
    [frame] = get(client, f"files/{file_id(client, 'p6')}")["frames"]
    scene = get(client, f"images/{frame['image']}")
    asked = {"image": frame["image"], "person": scene["people"][1]["person"]}
    for more, where, cbgm in (
        ({}, Where(), False),
        ({"camera": "Tür 3"}, Where(camera="Tür 3"), False),
        ({"latest": "1990-01-01T00:00"}, Where(time=(None, 631152000.0)), False),
        ({"earliest": "2100-01-01T00:00"}, Where(time=(4102444800.0, None)), False),
        ({"cbgm": True}, Where(), True),
    ):
        query = service.query_of_index(int(asked["image"]), int(asked["person"]))
        [twin] = search(service.index, [query], 40, where, THRESHOLDS, cbgm)
        results = find(client, **asked, **more)
        assert [(row["best"]["person"], row["verdict"]) for row in results] == [
            (str(each.best.id), each.verdict) for each in twin
        ]
        assert (len(results) > 0) == (not {"earliest", "latest"} & set(more))
        assert {row["file"]["camera"] for row in results} <= {more.get("camera", "A"), "Tür 3"}
        assert asked["image"] not in {hit["image"] for row in results for hit in row["seen"]}


def test_a_video_is_served_by_parts(client, folder):
    address, content = f"/api/files/{file_id(client, 'webm')}/video", (folder / "Tür & Tor.webm").read_bytes()
    whole = client.get(address)
    assert whole.status_code == 200 and whole.content == content and whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"] == "video/webm"
    part = client.get(address, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert client.get(address, headers={"Range": f"bytes={len(content)}-"}).status_code == 416


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "x.png is an empty file"),
        (b"no picture", 400, "x.png is not an image of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "x.png is not an image of a known kind"),
        (b"0" * 3000, 413, "at most 2,000 bytes"),
    ],
)
def test_bad_uploads_are_told_and_nothing_is_left_of_them(client, service, monkeypatch, content, status, message):
    monkeypatch.setattr(pages, "UPLOAD_BYTES", 2000)
    before = stored(service)
    answer = client.post("/api/uploads", params={"name": "../../x.png"}, content=content)
    assert answer.status_code == status and answer.json()["detail"].startswith(message)
    assert service._folder.name not in answer.text
    assert stored(service) == before


def test_an_upload_of_too_many_pixels_is_refused_and_the_oldest_uploads_go(client, service, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "UPLOADS_KEPT", 2)
    photo = save_picture(tmp_path / "photo.jpg", 1)
    numbers = [upload(client, photo)["upload"] for _ in range(3)]
    assert [client.get(f"/api/uploads/{number}").status_code for number in numbers] == [404, 200, 200]
    assert len(stored(service)) == 2
    monkeypatch.setattr(jobs, "UPLOAD_PIXELS", 320 * 240 - 1)
    answer = client.post("/api/uploads", content=photo.read_bytes())
    assert answer.status_code == 400 and "more than 76799 pixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 422),
        ({"image": "1"}, 422),
        ({"image": "1", "person": "1", "upload": "x", "box": [0, 0, 9, 9]}, 422),
        ({"image": "1", "person": "1", "camera": 'A" or camera != "'}, 422),
        ({"image": "1", "person": str(2**63)}, 422),
        ({"image": "1", "person": "1"}, 404),
        ({"upload": "../x", "box": [0, 0, 9, 9]}, 404),
    ],
)
def test_wrong_searches_are_told(client, asked, status):
    answer = client.post("/api/searches", json=asked)
    assert answer.status_code == status and answer.json()["detail"]


def test_a_box_outside_the_picture_is_told(client, tmp_path):
    number = upload(client, save_picture(tmp_path / "a.jpg", 3))["upload"]
    for box in ([0, 0, 999, 20], [5, 5, 5, 5], [20, 20, 10, 10]):
        answer = client.post("/api/searches", json={"upload": number, "box": box})
        assert answer.status_code == 400 and "give the left, top, right and bottom" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["../../requirements.txt", "%2e%2e/%2e%2e/requirements.txt", "..%2f..%2f..%2fetc/passwd", "../app.py",
     "//etc/passwd", "api/files/..%2f..%2fetc%2fpasswd/video", "api/files/%2fetc%2fpasswd/video",
     "api/images/0/picture", "api/files/0/video", "api/files/0", "api/people/0/crop",
     "api/uploads/..%2f..%2fetc%2fpasswd/picture"],
)  # fmt: skip
def test_no_path_leads_out(client, path):
    answer = client.get(f"/{path}")
    assert answer.status_code in (404, 422), (path, answer.text)


def test_only_files_as_they_were_indexed_are_served(tmp_path):
    place = fill(tmp_path)
    with service_of(place) as service, TestClient(create_app(service)) as client:
        film, photo = file_id(client, "webm"), file_id(client, "p3")
        assert client.get(f"/api/files/{photo}/video").status_code == 404, "a picture is no video"
        [frame] = get(client, f"files/{photo}")["frames"]
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        addresses = {"Tür & Tor.webm": f"files/{film}/video", "p3.jpg": f"images/{frame['image']}/picture"}
        for name, address in addresses.items():
            assert client.get(f"/api/{address}").status_code == 200
            (tmp_path / name).unlink()
            assert client.get(f"/api/{address}").status_code == 404
            (tmp_path / name).symlink_to(secret)
            answer = client.get(f"/api/{address}")
            assert answer.status_code == 404 and b"secret" not in answer.content


@pytest.mark.parametrize(
    ("path", "most"), [("login", pages.BODY_BYTES), ("searches", pages.BODY_BYTES), ("uploads", 200_000)]
)
def test_no_more_of_a_body_is_read_than_its_limit(service, monkeypatch, path, most):
    monkeypatch.setattr(pages, "UPLOAD_BYTES", 200_000)
    chunk, read, answers = b" " * 10_000, 0, []

    async def endless():
        nonlocal read
        read += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def answer(message):
        answers.append(message)

    scope = {
        "type": "http", "method": "POST", "path": f"/api/{path}", "query_string": b"", "http_version": "1.1",
        "headers": [(b"host", b"here"), (b"content-type", b"application/json")],
    }  # fmt: skip
    password = None if path == "uploads" else PASSWORD
    asyncio.run(create_app(service, password)(scope, endless, answer))
    assert answers[0]["status"] == 413 and most < read <= most + len(chunk)


def test_a_body_up_to_the_limit_is_read(client):
    content = b'{"password": ""}'.ljust(pages.BODY_BYTES)
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/login", content=content, headers=headers).status_code == 204
    assert client.post("/api/login", content=content + b" ", headers=headers).status_code == 413


def test_the_password_opens_the_api(service):
    with TestClient(create_app(service, PASSWORD)) as client:
        assert client.get("/").status_code == 200
        for path in ("index", "files", "openapi.json", "images/1/picture", "files/1/video", "uploads/x/picture"):
            assert client.get(f"/api/{path}").status_code == 401
        assert client.post("/api/searches", json={"image": "1", "person": "1"}).status_code == 401
        assert client.post("/api/uploads", content=b"x").status_code == 401
        assert client.get("/api/index", headers={"Authorization": "Bearer open sesame"}).status_code == 401
        assert client.get("/api/index", headers={"Authorization": f"Bearer {PASSWORD}"}).status_code == 200
        assert client.get("/api/index", headers={"Authorization": "Bearer ä".encode()}).status_code == 401
        assert client.post("/api/login", json={"password": "wrong"}).status_code == 401
        assert client.get("/api/index").status_code == 401
        answer = client.post("/api/login", json={"password": PASSWORD})
        assert answer.status_code == 204 and PASSWORD not in answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
        assert client.get("/api/index").status_code == 200
        name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
        elsewhere = TestClient(create_app(service, PASSWORD), base_url="http://testserver:8001", cookies={name: value})
        assert elsewhere.get("/api/index").status_code == 401
        other = elsewhere.post("/api/login", json={"password": PASSWORD}).headers["set-cookie"]
        assert not other.startswith(f"{name}=")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_a_page_without_password_has_the_names_of_this_machine_alone(service, host):
    with TestClient(server_of(service, None, host).config.app) as client:
        for name in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", host if ":" not in host else f"[{host}]"):
            assert client.get("/api/index", headers={"Host": name}).status_code == 200, name
        assert client.get("/api/index", headers={"Host": "elsewhere.example"}).status_code == 400


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200), (None, 200)]
)
def test_other_sites_pages_cannot_ask(client, tmp_path, site, status):
    headers = {"Sec-Fetch-Site": site} if site else {}
    photo = save_picture(tmp_path / "photo.png", 3).read_bytes()
    assert client.post("/api/uploads", content=photo, headers=headers).status_code == status
    assert client.get("/api/index", headers=headers).status_code == status
    assert client.post("/api/login", json={"password": ""}, headers=headers).status_code == {200: 204}.get(status, 403)
    assert client.get("/", headers=headers).status_code == 200, "links to the page work"


def test_the_server_ends_though_a_request_is_not_over(service, monkeypatch, capfd):
    monkeypatch.setattr(pages, "GRACE", 1)
    before = stored(service)
    with socket.socket() as slow, served(service) as address:
        slow.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        slow.sendall(b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n.")
        while stored(service) == before:
            time.sleep(0.01)
    assert stored(service) == before and capfd.readouterr().err == ""


def test_pages_are_answered_while_several_users_wait_for_the_network(client, service, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "WAITING", 3)
    photos = [save_picture(tmp_path / f"{level}.png", level) for level in (1, 2, 3)]
    searcher = service._searcher
    searcher.go.clear()
    searcher.busy.clear()
    try:
        with ThreadPoolExecutor(3) as users:
            waiting = [users.submit(upload, client, photo) for photo in photos]
            assert searcher.busy.wait(30)
            while service._waiting < 3:
                time.sleep(0.01)
            assert get(client, "index")["files"] == 5
            refused = client.post("/api/uploads", content=photos[0].read_bytes())
            assert refused.status_code == 503 and "try again" in refused.json()["detail"]
            searcher.go.set()
            assert [len(answer.result()["people"]) for answer in waiting] == [1, 2, 3]
    finally:
        searcher.go.set()


def test_the_api_is_described_and_the_page_asks_nobody_else(client):
    described = get(client, "openapi.json")
    assert {"/api/searches", "/api/uploads", "/api/files/{file}/video"} <= set(described["paths"])
    assert all(operation["summary"] for path in described["paths"].values() for operation in path.values())
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|[\"'(]//", text), file
        assert client.get(f"/{file.name}").status_code == 200


def test_a_real_network_finds_what_it_finds_without_a_page(tmp_path):
    searcher = Searcher(eager_model())
    pixels = (picture(120, 160) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [(_, _, blank)] = searcher.with_images([np.zeros((64, 64, 3), np.uint8)])
    network = Network("tiny.pth", "0", blank.embeddings.shape[1], {})
    with PeopleIndex(str(tmp_path / "people.db"), network) as index:
        index_files(index, searcher, [tmp_path / "a.png"])
        with Service(index, searcher) as service, TestClient(create_app(service)) as client:
            shown = upload(client, tmp_path / "a.png")
            box = shown["people"][0]["box"]
            twin = searcher.search(tmp_path / "a.png", box, [tmp_path / "a.png"])
            results = find(client, upload=shown["upload"], box=box)
            assert len(results) == len(twin) > 3
            for row, person in zip(results, twin, strict=True):
                assert row["similarity"] == pytest.approx(person.similarity, abs=1e-3) and row["verdict"] is None
                np.testing.assert_allclose(row["best"]["box"], person.box, atol=1e-2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others reach the page: give --password"),
        (["--password", "short"], "--password has 5 characters: give at least 12"),
        (["--port", "taken"], "cannot be used"),
        (["--ckpt", "gone.pth"], "gone.pth"),
    ],
)
def test_what_cannot_be_served_is_told(capsys, monkeypatch, words, message):
    monkeypatch.delenv(program.PASSWORD, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [str(taken.getsockname()[1]) if word == "taken" else word for word in words]
        port = [] if "--port" in words else ["--port", 0]
        assert call(program, "--index", "people.db", *port, *words) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_a_missing_package_is_named(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "tools.serve.app")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert call(program, "--index", "people.db") == 1
    assert "the web page needs uvicorn: pip install -r requirements-web.txt" in capsys.readouterr().err


def test_a_password_may_be_in_the_environment(monkeypatch):
    monkeypatch.setitem(os.environ, program.PASSWORD, PASSWORD)
    assert program.password_of(program.parse_args(["--index", "people.db", "--host", "0.0.0.0"])) == PASSWORD
