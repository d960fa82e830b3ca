"""How a tree of options takes values from files and from the command line, and what is said of wrong ones."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode as CN

BASE_KEY = "BASE"
"""Key by which a config file names the one it builds on."""


def merge_file(cfg: CN, path: Path) -> None:
    """Put the options of a YAML file over the tree's, those of the files it builds on first.

    Raises:
        FileNotFoundError: a config file is missing.
        KeyError: a key does not exist; the message names the nearest one.
        ValueError: a value has the wrong type, a file is not a mapping, or files name each other as base in a circle.
    """
    for file, options in _chain(path):
        _merge(cfg, options, str(file))


def merge_words(cfg: CN, words: Sequence[str]) -> None:
    """Put keys and values in turn, as on a command line, over the tree's.

    Raises:
        KeyError, ValueError: as `merge_file`; ValueError too for a key without a value.
    """
    if len(words) % 2:
        raise ValueError(
            f"options come in pairs KEY VALUE, but {len(words)} words were given: {' '.join(map(str, words))}"
        )
    _merge(cfg, dict(zip(words[::2], words[1::2], strict=True)), "command line")


def _chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """The files that `path` builds on, base first, each with its options as one flat dict of dotted keys."""
    path = path.resolve()
    if path in seen:
        raise ValueError(f"config files build on each other in a circle: {' -> '.join(str(p) for p in (*seen, path))}")
    if not path.is_file():
        named_by = f", named as {BASE_KEY} in {seen[-1]}" if seen else ""
        raise FileNotFoundError(f"no config file at {path}{named_by}; see the folder configs/ for those that exist")
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold options as KEY: VALUE, but holds a {type(options).__name__}")
    base = options.pop(BASE_KEY, None)
    chain = _chain(path.parent / base, (*seen, path)) if base else []
    return [*chain, (path, _flatten(options))]


def _flatten(options: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in options.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _merge(cfg: CN, options: dict, source: str) -> None:
    known = _flatten(cfg)
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise KeyError(f"{source}: there is no option {key!r}; the nearest is {near[0]!r} (all are in defaults.py)")
        try:
            cfg.merge_from_list([key, _coerced(value, known[key])])
        except ValueError as error:
            wanted = type(known[key]).__name__
            raise ValueError(f"{source}: {key} must be of type {wanted}, but is {value!r}") from error


def _coerced(value: object, default: object) -> object:
    """The value in the notation that yacs takes, where a file or a command line would lose its type."""
    if isinstance(default, str) and isinstance(value, bool):
        return "on" if value else "off"  # YAML reads a bare off as False
    if isinstance(default, float) and not isinstance(value, bool):
        try:
            return float(value)  # 1 or the text "1e-3" where a float is meant
        except (TypeError, ValueError):
            return value
    if isinstance(default, bool) and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(default, str) and isinstance(value, str):
        return repr(value)  # yacs would evaluate text that looks like a number
    return value
