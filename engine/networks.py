"""Opening a trained network from its checkpoint: the options it was trained with come along."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from defaults import get_default_cfg, load_cfg, read_cfg
from engine.checkpoint import identify, load_weights, read_checkpoint
from engine.exported import ExportedNetwork, read_onnx
from engine.solver import precision
from models import build_model
from models.base import PersonSearchModel
from models.build import FAMILIES
from utils.errors import UserError
from utils.match_thresholds import MatchThresholds
from utils.options import flatten
from utils.text import shortened

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
NETWORK_OPTIONS = ("MODEL.", "INPUT.MIN_SIZE", "INPUT.MAX_SIZE")
"""Beginnings of the options that describe a network, which a checkpoint carries."""
MEASURED = ("EVAL.THRESHOLDS.", "EVAL.COMPANIONS.")
"""Beginnings of the options that programs measure of a network and store with its checkpoint."""
EXPORTED_AS = {"EVAL.AMP": "off", "EVAL.COMPILE": False}
"""Options that an ONNX file is exported with, besides those of the network."""
NOT_COMPARED = ("MODEL.OIM.NUM_IDS", "MODEL.BACKBONE.WEIGHTS")
"""Network options that a run fills in, or that matter before training only."""


def open_network(
    path: str | Path, cfg_file: str | Path | None = None, opts: Sequence[str] = ()
) -> tuple[CfgNode, PersonSearchModel]:
    """Build the network of a checkpoint and load its weights; or open one that tools.export wrote.

    Args:
        path: a checkpoint of this project or of a known release, or an ONNX file (`.onnx`).
        cfg_file, opts: see `options_of`.

    Returns:
        The options and the network, on the CPU.

    Raises:
        OSError, UserError: a file is missing or damaged, the checkpoint carries no options and is of no known release,
            or the weights do not fit the options, or an option is not that of an ONNX file.
    """
    if Path(path).suffix == ".onnx":
        return _open_onnx(Path(path), cfg_file, opts)
    checkpoint = read_checkpoint(Path(path))
    cfg = options_of(checkpoint, str(path), cfg_file, opts)
    check_family_options(cfg)
    model = build_model(cfg)
    load_weights(model, checkpoint, str(path))
    return cfg, model


def _open_onnx(path: Path, cfg_file: str | Path | None, opts: Sequence[str]) -> tuple[CfgNode, ExportedNetwork]:
    network, config = read_onnx(path)
    cfg = options_of({"config": config}, str(path), cfg_file, opts)
    own, given = (flatten(each) for each in (read_cfg(config, f"the config in {path}"), cfg))
    fixed = [key for key in own if key.startswith((*NETWORK_OPTIONS, *EXPORTED_AS))]
    if changed := [key for key in fixed if own[key] != given[key]]:
        told = shortened([f"{key} {own[key]}" for key in changed])
        raise UserError(f"{path} was exported with {told}: leave the option out, or export again")
    return cfg, network


def check_family_options(cfg: CfgNode) -> None:
    """Raise UserError for options under MODEL that are not at their default, and that MODEL.FAMILY does not have."""
    name, defaults = cfg.MODEL.FAMILY, flatten(get_default_cfg().MODEL)
    given = {key for key, value in flatten(cfg.MODEL).items() if value != defaults[key]}
    foreign = sorted(key for key in given if name in FAMILIES and not key.startswith(FAMILIES[name].options))
    if foreign:
        named = shortened([f"MODEL.{key}" for key in foreign])
        raise UserError(f"MODEL.FAMILY {name} does not have {named}: leave out what is for other families")


def weights_digest(model: PersonSearchModel) -> str:
    """A checksum of all weights that searching depends on: the tables of a training set's identities are left out."""
    if isinstance(model, ExportedNetwork):
        return model.description.weights
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(model.state_dict().items()):
        if name not in model.identity_memory:
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def network_options(cfg: CfgNode) -> dict[str, object]:
    """The options that describe a network, by their dotted names, but for those that matter before training only."""
    options = flatten(cfg).items()
    return {key: value for key, value in options if key.startswith(NETWORK_OPTIONS) and key not in NOT_COMPARED}


def search_settings(cfg: CfgNode) -> dict[str, Any]:
    """Arguments of `engine.searcher.Searcher` that options determine."""
    return {
        "batch_size": cfg.INPUT.BATCH_SIZE_TEST,
        "num_workers": cfg.INPUT.NUM_WORKERS,
        "amp": precision(cfg.EVAL.AMP, "EVAL.AMP"),
        "compiled": cfg.EVAL.COMPILE,
        "max_pixels": cfg.INPUT.MAX_PIXELS,
    }


def match_thresholds(cfg: CfgNode) -> MatchThresholds | None:
    """The thresholds of a search's matches, None where the options have none; UserError where they do not fit."""
    thresholds = MatchThresholds(cfg.EVAL.THRESHOLDS.POSSIBLE, cfg.EVAL.THRESHOLDS.MATCH)
    if not any(thresholds):
        return None
    if not 0 < thresholds.possible <= thresholds.match:
        raise UserError("EVAL.THRESHOLDS.POSSIBLE must be above 0, and EVAL.THRESHOLDS.MATCH as high or higher")
    return thresholds


def options_of(checkpoint: dict, name: str, cfg_file: str | Path | None = None, opts: Sequence[str] = ()) -> CfgNode:
    """The options to use a checkpoint with.

    From the lowest to the highest precedence: the config file, or without one the options that the checkpoint carries
    or the config of its release; the options of the network, and those measured of it, that the checkpoint carries;
    `opts`.

    Args:
        checkpoint: content of the file.
        name: its name in errors.
        cfg_file: a config file, for data, devices and evaluation.
        opts: keys and values in turn, as on a command line.

    Raises:
        UserError: it carries no options, its weights are of no known release, and there is no config file.
    """
    carried = read_cfg(checkpoint["config"], f"the config in {name}") if "config" in checkpoint else None
    if cfg_file is not None and carried is not None:
        return load_cfg(cfg_file, [*_carried_words(carried, load_cfg(cfg_file), name), *opts])
    if cfg_file is not None:
        return load_cfg(cfg_file, opts)
    if carried is not None:
        return read_cfg(checkpoint["config"], f"the config in {name}", opts)
    if release := (weights := identify(checkpoint, name)).release:
        file = release.config_files(weights.state)[0]
        log.info("%s: weights of %s, with the options of %s", name, release.title, file)
        return load_cfg(ROOT / file, opts)
    raise UserError(f"{name} does not carry the options of its network: name its config file with --cfg")


def _carried_words(carried: CfgNode, given: CfgNode, name: str) -> list:
    """What a checkpoint says of its network, keys and values in turn; logs what the config file has otherwise."""
    options, others = flatten(carried), flatten(given)
    network = {key: value for key, value in options.items() if key.startswith(NETWORK_OPTIONS)}
    differing = [key for key in network if network[key] != others[key] and key not in NOT_COMPARED]
    if differing:
        told = shortened([f"{key} {network[key]} instead of {others[key]}" for key in differing])
        log.info("the network is that of %s: %s", name, told)
    defaults = flatten(get_default_cfg())
    measured = {key: options[key] for key in options if key.startswith(MEASURED) and options[key] != defaults[key]}
    return [word for key, value in (network | measured).items() for word in (key, value)]
