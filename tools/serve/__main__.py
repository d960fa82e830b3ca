"""Serve a web page that finds people in an index of pictures and videos, which tools.index makes.

    python -m tools.serve --index people.db --ckpt CKPT [--port 8000] [--host 127.0.0.1] [--password PASSWORD]

Open http://127.0.0.1:8000. Without --host only programs on this machine reach the page. With the address of a network,
or 0.0.0.0 for all, everybody there does who knows the password; the connection is not encrypted.
"""

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/serve`

from tools.common import new_parser, run_program
from tools.searching import add_index_arguments
from utils.errors import UserError

PASSWORD = "SERVE_PASSWORD"
"""Environment variable that may hold the password instead of --password, which other users of the machine can read."""
SHORTEST = 12
"""Characters of a password that nobody finds by trying."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("serve", __doc__)
    add = parser.add_argument
    add("--port", type=port, default=8000, help="where the page is served; 0 for any free one (default: %(default)s)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="of this machine, to listen at (default: %(default)s)")
    add("--password", help=f"of the page, also read from {PASSWORD}; needed with another --host")
    add_index_arguments(parser)
    return parser.parse_intermixed_args(argv)


def port(text: str) -> int:
    """An argument that is the number of a port."""
    if not 0 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return int(text)


def main(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: no password where one is needed, or a short one; the address cannot be used; a package is missing; or
            see `engine.index.store.PeopleIndex` and `tools.searching.open_searcher`.
    """
    password = password_of(args)
    try:
        from tools.serve.app import server_of
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise UserError(f"the web page needs {error.name}: pip install -r requirements-web.txt") from None
    from engine.index.store import PeopleIndex
    from engine.index.thresholds import thresholds_of
    from tools.searching import open_searcher
    from tools.serve.jobs import Service

    with listen(args.host, args.port) as listening:
        searcher, network, thresholds = open_searcher(args)
        with PeopleIndex(args.index) as index:
            index.network.check_weights(network, args.index)
            with Service(index, searcher, thresholds or thresholds_of(index)) as service:
                sys.stdout.write(f"the page is at {address(listening)} - Ctrl-C ends it\n")
                sys.stdout.flush()
                server_of(service, password, args.host).run([listening])


def password_of(args: argparse.Namespace) -> str | None:
    """The password of the page, None for none; UserError where one is needed, or it is easily guessed."""
    password = args.password or os.environ.get(PASSWORD) or None
    if password is None and not is_own(args.host):
        raise UserError(f"--host {args.host} lets others reach the page: give --password, which they must know")
    if password is not None and len(password) < SHORTEST:
        raise UserError(f"--password has {len(password)} characters: give at least {SHORTEST}, which nobody guesses")
    return password


def is_own(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, number: int) -> socket.socket:
    """A socket that listens; UserError where the address is none of this machine's, or is in use."""
    try:
        family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, number), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--host {host} --port {number} cannot be used ({reason}): give others") from None


def address(listening: socket.socket) -> str:
    """What to open in a browser on this machine."""
    host, number = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
