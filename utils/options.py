"""How a tree of options takes values from files and from the command line, and what is said of wrong ones."""

import ast
import difflib
import math
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode as CN

BASE_KEY = "BASE"
"""Key by which a config file names the one it builds on."""

_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother = 2, 80, 80


def merge_file(cfg: CN, path: Path) -> None:
    """Put the options of a YAML file over the tree's, those of the files it builds on first.

    Raises:
        OSError: a config file is missing, or cannot be opened.
        KeyError: a key does not exist; the message names the nearest one.
        ValueError: a value has the wrong type, a file is not a mapping, or files name each other as base in a circle.
    """
    for file, options in _chain(path):
        _merge(cfg, _flatten(options, cfg, str(file)), str(file))


def merge_text(cfg: CN, text: str, source: str) -> None:
    """Put the options of a YAML text that comes from `source` over the tree's; it may not build on a file.

    Raises:
        KeyError, ValueError: as `merge_file`.
    """
    options = _parse(text, source)
    if BASE_KEY in options:
        raise ValueError(f"{source} names a file to build on ({BASE_KEY}), which only config files may: not read")
    _merge(cfg, _flatten(options, cfg, source), source)


def merge_words(cfg: CN, words: Sequence[str]) -> None:
    """Put keys and values in turn, as on a command line, over the tree's.

    Raises:
        KeyError, ValueError: as `merge_file`; ValueError too for a key without a value.
    """
    if len(words) % 2:
        raise ValueError(
            f"options come in pairs KEY VALUE, but {len(words)} words were given: {' '.join(map(str, words))}"
        )
    source = "command line"
    _merge(cfg, _flatten(dict(zip(words[::2], words[1::2], strict=True)), cfg, source), source)


def _chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """The files that `path` builds on, base first, each with its options."""
    path = path.resolve()
    if path in seen:
        raise ValueError(f"config files build on each other in a circle: {' -> '.join(str(p) for p in (*seen, path))}")
    if not path.is_file():
        named_by = f", named as {BASE_KEY} in {seen[-1]}" if seen else ""
        raise FileNotFoundError(f"no config file at {path}{named_by}; see the folder configs/ for those that exist")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a YAML file: byte {error.start} is not UTF-8 text; save it as UTF-8"
        ) from error
    options = _parse(text, str(path))
    if BASE_KEY not in options:
        return [(path, options)]
    base = options.pop(BASE_KEY)
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path}: {BASE_KEY} must be the path of a config file, but is {_brief.repr(base)}")
    return [*_chain(path.parent / base, (*seen, path)), (path, options)]


def _parse(text: str, source: str) -> dict:
    """The mapping that a YAML text holds, read as data; none is an empty one."""
    try:
        _refuse_doubles(yaml.compose(text, Loader=yaml.SafeLoader))
        options = yaml.safe_load(text)
    except Exception as error:  # values such as !!float x raise almost anything
        raise ValueError(f"{source} is not a YAML file of options: {_fault(error)}") from error
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise ValueError(f"{source} must hold options as KEY: VALUE, but holds a {type(options).__name__}")
    return options


def _refuse_doubles(root: yaml.Node | None) -> None:
    """Raise a YAMLError where a key comes twice in one mapping: YAML would silently take the second one."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # aliases may lead back to it
        if not isinstance(node, yaml.MappingNode):
            left += node.value
            continue
        names = set()
        for key, value in node.value:
            left += [key, value]
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} comes twice", problem_mark=key.start_mark)
                names.add(key.value)


def _fault(error: Exception) -> str:
    """What is wrong with a YAML text, on one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, yaml.YAMLError):
        return "one of its values is not of the kind that its tag names"
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).partition("\n")[0]
    mark = error.problem_mark or error.context_mark
    return f"{error.problem or error.context}{f' (line {mark.line + 1})' if mark else ''}"


def _flatten(options: dict, tree: CN, source: str) -> dict:
    """Options under their dotted names.

    Raises:
        KeyError: a key does not exist in the tree; the message names the nearest one.
        ValueError: an option comes twice.
    """
    flat, known = {}, dict(_leaves(tree))
    for key, value in _named(options, {name.rpartition(".")[0] for name in known}):
        if key not in known:
            near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0)
            raise KeyError(
                f"{source}: there is no option {_brief.repr(key)}; the nearest is {near[0]!r} (all are in defaults.py)"
            )
        if key in flat:
            raise ValueError(f"{source}: {key} comes twice: leave one out")
        flat[key] = value
    return flat


def _leaves(tree: CN, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, CN):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _named(options: dict, sections: set[str], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Values under their dotted names, down to the options: what is no section is not entered."""
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and any(f"{section}.".startswith(f"{name}.") for section in sections):
            yield from _named(value, sections, f"{name}.")
        else:
            yield name, value


def _merge(cfg: CN, options: dict, source: str) -> None:
    for key, value in options.items():
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        try:
            converted = _converted(value, node[name])
            fits = _fits(converted, node[name])
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            fits = False  # no literal, or one that is nested too deeply
        if not fits:
            raise ValueError(f"{source}: {key} must be of type {_wanted(node[name])}, but is {_brief.repr(value)}")
        node[name] = converted


def _converted(value: object, default: object) -> object:
    """A value as the default's type where it is another way to write one; other values as they are."""
    if isinstance(default, str):
        words = {True: "on", False: "off"}  # YAML reads a bare off as False
        return words[value] if isinstance(value, bool) else value
    if isinstance(value, str):  # as on the command line
        value = ast.literal_eval(value.capitalize() if isinstance(default, bool) else value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return list(value) if isinstance(value, tuple) else value


def _fits(value: object, default: object) -> bool:
    """Whether a value has the type of the default; the elements of lists too. Numbers have to be finite."""
    if isinstance(default, list):
        return isinstance(value, list) and all(_fits(element, default[0]) for element in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def _wanted(default: object) -> str:
    if isinstance(default, list):
        return f"list of {_wanted(default[0])}"
    return "float (and finite)" if isinstance(default, float) else type(default).__name__
