"""What the programs of an index share: arguments, and the network that fills and searches it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.common import add_config_arguments

if TYPE_CHECKING:  # for PyTorch takes seconds, in which --help would wait
    from engine.index.rows import Network
    from engine.searcher import Searcher
    from utils.match_thresholds import MatchThresholds


class OpenNetwork(NamedTuple):
    """A network that searches, how an index knows it, and its thresholds of a match, where they are known."""

    searcher: "Searcher"
    network: "Network"
    thresholds: "MatchThresholds | None"


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the index, the network and its options."""
    where = "of people: a file ending in .db, or a Milvus server, http://HOST:19530 (token in MILVUS_TOKEN)"
    parser.add_argument("--index", required=True, metavar="FILE_OR_URI", help=where)
    parser.add_argument("--ckpt", type=Path, metavar="FILE", help="checkpoint of the network")
    add_config_arguments(parser)


def camera_name(text: str) -> str:
    """An argument that names a camera."""
    from engine.index.rows import check_camera

    try:
        return check_camera(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def open_searcher(args: argparse.Namespace) -> OpenNetwork:
    """The network that the arguments name.

    Raises:
        OSError, UserError: no --ckpt; or see `engine.networks.open_network`.
    """
    from engine.devices import select_device
    from engine.index.rows import Network
    from engine.networks import match_thresholds, network_options, open_network, search_settings, weights_digest
    from engine.searcher import Searcher
    from tools.common import check_options
    from utils.errors import UserError
    from utils.images import read_photo

    if args.ckpt is None:
        raise UserError("--ckpt is missing: name the checkpoint of the network that finds the people")
    cfg, model = open_network(args.ckpt, args.cfg, args.opts)
    check_options(cfg)
    network = Network(str(args.ckpt), weights_digest(model), model.embedding_width, network_options(cfg))
    searcher = Searcher(model, select_device(cfg.DEVICE), read=read_photo, **search_settings(cfg))
    return OpenNetwork(searcher, network, match_thresholds(cfg))
