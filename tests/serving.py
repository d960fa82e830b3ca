"""An index of drawn pictures and a video, and a service that finds people in it, for tests of the web page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filming import NETWORK, StubSearcher, save_picture, save_video

from engine.index.indexing import index_files
from engine.index.store import PeopleIndex
from tools.serve import __main__ as program
from tools.serve.app import server_of
from tools.serve.jobs import Service
from utils.match_thresholds import MatchThresholds

THRESHOLDS = MatchThresholds(0.5, 0.85)


class SlowSearcher(StubSearcher):
    """Waits for `go` before it searches; `busy` tells that it waits."""

    def __init__(self):
        super().__init__()
        self.go, self.busy = threading.Event(), threading.Event()
        self.go.set()

    def with_images(self, requests, on_error=None):
        """See StubSearcher."""
        self.busy.set()
        assert self.go.wait(60)
        yield from super().with_images(requests, on_error)


def fill(folder: Path) -> str:
    """An index of three pictures, a picture of nobody, and a video of another camera that browsers play."""
    pictures = [save_picture(folder / f"p{level}.jpg", level) for level in (3, 4, 6, 7)]
    film = save_video(folder / "Tür & Tor.webm", [3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 3, 3, 5, 7], rate=1.0)
    with PeopleIndex(str(folder / "people.db"), NETWORK) as index:
        index_files(index, StubSearcher(), pictures, camera="A")
        index_files(index, StubSearcher(), [film], camera="Tür 3")
    return str(folder / "people.db")


@contextmanager
def service_of(place: str, searcher: StubSearcher | None = None) -> Iterator[Service]:
    """A service of an index."""
    with PeopleIndex(place) as index, Service(index, searcher or StubSearcher(), THRESHOLDS) as service:
        yield service


@contextmanager
def served(service: Service, password: str | None = None) -> Iterator[str]:
    """The address of a page, whose server has ended at the end."""
    with program.listen("127.0.0.1", 0) as listening:
        server = server_of(service, password, "127.0.0.1")
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield program.address(listening)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
