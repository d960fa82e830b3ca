"""A Milvus server for tests: one that runs, or one that the package `milvus` carries."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER, PYTHON = "MILVUS_SERVER", "MILVUS_PYTHON"
"""Environment variables: the address of a server whose collections of this project may be deleted; a Python
interpreter that has the package `milvus` (2.3.5), which needs an environment of its own beside pymilvus 3."""

START = """
import sys
from milvus import MilvusServer
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.start()
print(server.listen_port, flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """The address of a server, started in `folder` if none is named; the test is skipped where there is none."""
    if SERVER in os.environ:
        yield os.environ[SERVER]
        return
    python = os.environ.get(PYTHON) or (sys.executable if importlib.util.find_spec("milvus") else None)
    if python is None:
        pytest.skip(f"no Milvus server: pip install milvus==2.3.5 into an environment, and name its Python in {PYTHON}")
    process = subprocess.Popen([python, "-c", START, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip()
        assert port, "the Milvus server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(timeout=60)
