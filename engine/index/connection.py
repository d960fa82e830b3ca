"""A connection to Milvus: an embedded database in a file (Milvus Lite), or a server."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError

TOKEN = "MILVUS_TOKEN"
"""Environment variable with the token of a server, such as USER:PASSWORD."""
TIMEOUT = 120.0
"""Seconds for which a server that does not answer is asked again, and which one answer may take."""
INSTALL = "pip install -r requirements-index.txt"


os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # loader processes are forked, and do not use the connection
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class Connection:
    """Calls the methods of a `pymilvus.MilvusClient`; an error of Milvus becomes a UserError that names the index.

    Args:
        place: a file name that ends in .db, made if missing; or the address of a server, http://HOST:PORT or
            http://HOST:PORT/DATABASE.

    Raises:
        UserError: pymilvus is not installed, `place` is neither of the two, the file is in use by another process or
            damaged, or the server does not answer.
    """

    def __init__(self, place: str):
        self.place = place
        self.is_file = "://" not in place
        if self.is_file and not place.endswith(".db"):
            raise UserError(f"{place} is no name of an index: a file ending in .db, or a server, http://HOST:19530")
        try:
            import grpc
            import pymilvus
        except ImportError:
            raise UserError(f"an index needs pymilvus, which is not installed: {INSTALL}") from None
        _silence("pymilvus")
        self._errors = pymilvus.MilvusException, grpc.RpcError
        if self.is_file:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        causes = _Causes()
        lite = _silence("milvus_lite")
        _silence("grpc._server")  # of the embedded server, which lacks methods that pymilvus can do without
        lite.addHandler(causes)
        try:
            self._client = pymilvus.MilvusClient(place, token=os.environ.get(TOKEN, ""), timeout=self._timeout)
        except self._errors as error:
            raise self._told(causes.first or error) from error
        finally:
            lite.removeHandler(causes)

    @property
    def _timeout(self) -> float | None:
        return None if self.is_file else TIMEOUT  # a file's server is in this process, and on a slow disk may take long

    def call(self, method: str, *args: object, **kwargs: object) -> object:
        """What `MilvusClient.METHOD(*args, **kwargs)` returns."""
        return self._guarded(getattr(self._client, method), *args, timeout=self._timeout, **kwargs)

    def rows(self, collection: str, expression: str, fields: list[str]) -> list[dict]:
        """All rows of a collection that fit a condition, however many, in no order."""
        iterator = self._guarded(
            self._client.query_iterator, collection, filter=expression, output_fields=fields, batch_size=10_000
        )
        rows = []
        while batch := self._guarded(iterator.next):
            rows += batch
        iterator.close()
        return rows

    def close(self) -> None:
        """Close the connection; a file is then complete, and free for other processes."""
        self._client.close()
        if self.is_file:
            from milvus_lite import server_manager_instance

            server_manager_instance.release_server(self.place)

    def _guarded(self, function: Callable, *args: object, **kwargs: object) -> object:
        try:
            return function(*args, **kwargs)
        except (*self._errors, ValueError) as error:  # ValueError: of a client that another thread has closed
            raise self._told(error) from error

    def _told(self, error: Exception) -> UserError:
        message = getattr(error, "message", "") or str(getattr(error, "details", lambda: error)())
        if type(error).__name__ == "DataDirLockedError":
            return UserError(f"{self.place} is in use by another process: wait for it, or stop it")
        if "No space left" in message:
            return UserError(f"{self.place}: the disk is full; make room, and give the same command again to go on")
        if self.is_file:
            return UserError(f"{self.place} cannot be used as an index ({message.splitlines()[0]})")
        return UserError(f"the server {self.place} cannot be used ({message.splitlines()[0]}): is it running?")


class _Causes(logging.Handler):
    """Keeps the errors that Milvus Lite logs where it cannot open a file: its exception does not tell them."""

    def __init__(self) -> None:
        super().__init__()
        self.first: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first error."""
        if self.first is None and record.exc_info:
            self.first = record.exc_info[1]


def _silence(library: str) -> logging.Logger:
    """The logger of a library, which prints nothing any more: its errors are raised, too."""
    logger = logging.getLogger(library)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler())
    return logger
