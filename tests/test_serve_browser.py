"""The web page in a browser: choosing, clicking, results, the time in a video, errors, phone width."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("pymilvus", reason="an index needs pymilvus: pip install -r requirements-index.txt")
pytest.importorskip("milvus_lite", reason="an index in a file needs milvus-lite: pip install -r requirements-index.txt")
pytest.importorskip("fastapi", reason="the web page needs fastapi: pip install -r requirements-web.txt")
pytest.importorskip("uvicorn", reason="the web page needs uvicorn: pip install -r requirements-web.txt")
pytest.importorskip("playwright", reason="a browser is driven by playwright: pip install -r tests/requirements.txt")

from filming import NETWORK, save_picture
from playwright import sync_api
from serving import SlowSearcher, fill, served, service_of

from engine.index.store import PeopleIndex
from tools.serve import jobs

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000
"""Milliseconds, on a busy machine."""


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


@pytest.fixture(scope="module")
def address(service):
    """Of the page without token."""
    with served(service) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """A new tab, in which a mistake of the page's program, or a request elsewhere, fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 850})
    page.set_default_timeout(PATIENCE)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not is_own(request.url) else None)
    yield page
    page.close()
    assert not wrong


def is_own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))


def choose(tab, address: str, photo: Path) -> None:
    tab.goto(address)
    tab.wait_for_selector("#about:not(:empty)")
    tab.set_input_files("#picture-file", photo)
    tab.wait_for_selector("#query .picture img")


def headline(tab, text: str) -> None:
    sync_api.expect(tab.locator("#headline")).to_contain_text(text, timeout=PATIENCE)


def fault(tab, text: str) -> None:
    sync_api.expect(tab.locator("#error")).to_contain_text(text, timeout=PATIENCE)


def until(tab, condition: str) -> None:
    """Wait for a condition on the video; the page's policy forbids `wait_for_function`, which evaluates text."""
    for _ in range(PATIENCE // 100):
        if tab.locator("video").evaluate(condition):
            return
        tab.wait_for_timeout(100)
    pytest.fail(f"never: {condition}")


def test_a_picture_is_chosen_a_person_clicked_and_found_and_the_next_search_starts_from_a_result(
    tab, address, tmp_path
):
    choose(tab, address, save_picture(tmp_path / "Jörg 1.png", 3))
    assert tab.inner_text("#about") == "27 people in 5 files"
    people = tab.locator("#query .outline")
    assert people.count() == 3 and "3 people found" in tab.inner_text("#hint")
    edges, image = people.first.bounding_box(), tab.locator("#query img").bounding_box()
    assert (edges["x"] - image["x"]) / image["width"] == pytest.approx(20 / 320, abs=0.01)
    assert edges["height"] / image["height"] == pytest.approx(120 / 240, abs=0.01)
    people.first.click()
    headline(tab, "3 matches")
    cards = tab.locator("#results .card")
    assert "p3.jpg" in cards.first.inner_text() and "0.900" in cards.first.inner_text()
    assert "0:00 – 0:02" in cards.nth(1).inner_text()
    sync_api.expect(tab.locator("#query .outline.chosen")).to_have_count(1, timeout=PATIENCE)
    shown = cards.count()
    tab.select_option("[name=least]", "unlikely")
    assert cards.count() > shown
    tab.select_option("[name=least]", "match")
    sync_api.expect(cards).to_have_count(3, timeout=PATIENCE)
    tab.select_option("[name=camera]", "Tür 3")
    headline(tab, "2 matches")
    cards.first.click()
    tab.wait_for_selector("#detail .outline.chosen")
    tab.locator("#detail .outline").nth(1).click()  # somebody else of the scene
    tab.wait_for_selector("#detail:not([open])", state="attached")
    tab.wait_for_selector("#frames:not([hidden])")
    headline(tab, "2 possible")  # others of the camera are less sure detections
    assert "image=" in tab.url and "person=" in tab.url
    tab.go_back()
    sync_api.expect(tab.locator("#query figcaption")).to_have_text("Jörg 1.png", timeout=PATIENCE)
    headline(tab, "2 matches")


def test_a_video_jumps_to_the_moment_and_another_result_is_reached_by_key(tab, address, tmp_path):
    choose(tab, address, save_picture(tmp_path / "photo.png", 3))
    tab.locator("#query .outline").first.click()
    headline(tab, "3 matches")
    tab.locator("#results .card", has_text="0:10 – 0:11").click()
    tab.wait_for_selector("#detail .outline.chosen")
    assert [button.inner_text() for button in tab.locator("#moments button").all()] == ["0:10", "0:11"]
    tab.locator("#moments button").nth(1).click()
    tab.click("text=Play from 0:11")
    until(tab, "v => v.readyState > 1 && v.currentTime > 10.5")
    tab.locator("video").evaluate("v => v.pause()")
    tab.locator("#moments button").first.click()
    until(tab, "v => Math.abs(v.currentTime - 10) < 0.1")
    tab.click("text=Show the picture")
    tab.wait_for_selector("#detail .outline.chosen")
    tab.locator("#detail-name").press("ArrowLeft")
    sync_api.expect(tab.locator("#detail-name")).to_contain_text("2. Tür & Tor.webm", timeout=PATIENCE)
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#detail:not([open])", state="attached")


def test_the_keyboard_suffices_and_a_file_of_the_index_is_a_query(tab, address):
    tab.goto(address)
    tab.wait_for_selector("#about:not(:empty)")
    tab.focus("#browse")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#files li button")
    asked = []
    tab.on("request", lambda request: asked.append(request.url) if "text=" in request.url else None)
    tab.locator("#files-text").evaluate(
        "field => ['p', 'p4'].forEach((text) => { field.value = text; field.dispatchEvent(new Event('input')); })"
    )
    sync_api.expect(tab.locator("#files li")).to_have_count(1, timeout=PATIENCE)
    assert "picture" in tab.inner_text("#files li")
    assert len(asked) == 1, "the server is asked once for keys that follow each other"
    tab.focus("#files-text")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    fault(tab, "Nobody was found in p4.jpg")
    tab.focus("#browse")
    tab.keyboard.press("Enter")
    tab.fill("#files-text", "webm")
    sync_api.expect(tab.locator("#files li")).to_have_count(1, timeout=PATIENCE)
    assert "video" in tab.inner_text("#files li")
    tab.locator("#files li button").press("Enter")
    tab.wait_for_selector("#frames:not([hidden])")
    tab.wait_for_selector("#query .outline")
    first = tab.inner_text("#query figcaption")
    tab.focus("#frames input")
    tab.keyboard.press("End")
    sync_api.expect(tab.locator("#query figcaption")).not_to_have_text(first, timeout=PATIENCE)
    assert tab.inner_text("#frames output") == "0:13"
    tab.wait_for_selector("#query .outline")
    tab.locator("#query .outline").first.press("Enter")
    headline(tab, "match")
    tab.locator("#results .card").first.press("Enter")
    tab.wait_for_selector("#detail .outline.chosen")


def test_a_box_is_drawn_where_nobody_was_found(tab, address, tmp_path):
    choose(tab, address, save_picture(tmp_path / "nobody.png", 4))
    sync_api.expect(tab.locator("#hint")).to_contain_text("draw a box", timeout=PATIENCE)
    tab.click("#draw")
    image = tab.locator("#query img").bounding_box()
    tab.mouse.move(image["x"] + image["width"] / 4, image["y"] + image["height"] / 4)
    tab.mouse.down()
    tab.mouse.move(image["x"] + image["width"] / 2, image["y"] + image["height"] / 2, steps=3)
    tab.mouse.up()
    tab.wait_for_selector("#query .outline.chosen")
    headline(tab, "Nobody above the threshold")
    box = [float(edge) for edge in tab.url.rpartition("box=")[2].split("%2C")]
    assert box == pytest.approx([80, 60, 160, 120], abs=2)


def test_errors_are_told_and_the_page_goes_on(tab, service, address, tmp_path, folder):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    tab.goto(address)
    tab.wait_for_selector("#about:not(:empty)")
    tab.set_input_files("#picture-file", bad)
    fault(tab, "bad.png is not an image of a known kind")
    tab.goto(f"{address}/#upload=gone&box=1,2,3,4")
    fault(tab, "not kept any more: choose it again")
    tab.goto(f"{address}/#image=1&person=2")
    fault(tab, "not in the index")
    choose(tab, address, save_picture(tmp_path / "photo.png", 3))
    assert tab.is_hidden("#error")
    tab.locator("#query .outline").first.click()
    headline(tab, "3 matches")
    (folder / "p3.jpg").rename(folder / "moved.jpg")
    try:
        tab.locator("#results .card").first.click()
        sync_api.expect(tab.locator("#detail-note")).to_contain_text("p3.jpg is gone", timeout=PATIENCE)
        assert tab.locator("#detail img").count() == 1, "the small picture of the index stands in"
        tab.keyboard.press("Escape")
    finally:
        (folder / "moved.jpg").rename(folder / "p3.jpg")
    tab.fill("[name=latest]", "1990-01-01T00:00")
    headline(tab, "Nobody is in what was searched")


def test_the_page_goes_on_while_a_search_takes_long(tab, service, address, tmp_path):
    searcher = service._searcher
    choose(tab, address, save_picture(tmp_path / "photo.png", 3))
    searcher.go.clear()
    try:
        tab.locator("#query .outline").first.click()
        headline(tab, "Searching")
        tab.click("#browse")
        sync_api.expect(tab.locator("#files li")).to_have_count(5, timeout=PATIENCE)
        tab.keyboard.press("Escape")
    finally:
        searcher.go.set()
    headline(tab, "3 matches")


def test_the_password_is_asked_for(tab, service):
    password = "open sesame, please"
    with served(service, password) as address:
        tab.goto(address)
        tab.fill("#login [name=password]", "wrong")
        tab.click("#login button")
        sync_api.expect(tab.locator("#login [role=alert]")).to_have_text("this is not the password", timeout=PATIENCE)
        tab.fill("#login [name=password]", password)
        tab.click("#login button")
        tab.wait_for_selector("#about:not(:empty)")
        assert not tab.locator("#login").get_attribute("open")
        cameras = tab.locator("[name=camera] option").all_inner_texts()
        tab.context.clear_cookies()  # as after a new start of the server
        tab.click("#browse")
        tab.fill("#login [name=password]", password)
        tab.click("#login button")
        tab.wait_for_selector("#login:not([open])", state="attached")
        tab.click("#browse")
        sync_api.expect(tab.locator("#files li")).to_have_count(5, timeout=PATIENCE)
        assert tab.locator("[name=camera] option").all_inner_texts() == cameras == ["all", "A", "Tür 3"]


def test_the_same_click_works_after_an_error(tab, service, address, tmp_path, monkeypatch):
    choose(tab, address, save_picture(tmp_path / "photo.png", 3))
    person = tab.locator("#query .outline").first
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "WAITING", 0)
        person.click()
        fault(tab, "too many searches wait")
    person.click()
    headline(tab, "3 matches")
    assert tab.is_hidden("#error")


def test_an_empty_index_is_told(tab, tmp_path):
    with PeopleIndex(str(tmp_path / "empty.db"), NETWORK):
        pass
    with service_of(str(tmp_path / "empty.db")) as service, served(service) as address:
        tab.goto(address)
        sync_api.expect(tab.locator("#about")).to_contain_text("The index is empty", timeout=PATIENCE)


def test_a_server_that_is_gone_is_told(tab, service):
    with served(service) as address:
        tab.goto(address)
        tab.wait_for_selector("#about:not(:empty)")
    tab.evaluate("location.hash = 'image=1'")
    fault(tab, "The server does not answer")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_and_dark_mode(browser, address, tmp_path, scheme):
    tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    tab.set_default_timeout(PATIENCE)
    choose(tab, address, save_picture(tmp_path / "photo.png", 3))
    tab.locator("#query .outline").first.click()
    headline(tab, "3 matches")
    tab.locator("#results .card").nth(1).click()
    tab.wait_for_selector("#detail .outline.chosen")
    widths = tab.evaluate("[document.documentElement.scrollWidth, document.querySelector('#detail').scrollWidth]")
    assert max(widths) <= 390
    [red, _, _] = tab.evaluate("getComputedStyle(document.body).color").strip("rgb()").split(",")
    assert (int(red) > 127) == (scheme == "dark")
    tab.close()
