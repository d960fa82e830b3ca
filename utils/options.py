"""Config files and command-line options merged over a tree of defaults, with errors that name file and option."""

import ast
import difflib
import fnmatch
import math
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import yaml
from yacs.config import CfgNode

from utils.errors import UserError

Source = tuple[str, dict]
"""Name of a file or "command line", and its options, nested as in YAML."""


class UniqueKeyLoader(yaml.SafeLoader):
    """Reads YAML as data and refuses a key that comes twice in a mapping, of which YAML would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Raise a MarkedYAMLError for a duplicate key; otherwise as the base class."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} comes twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_file(path: Path, named_by: tuple[Path, ...] = ()) -> list[Source]:
    """Options of the files that a config file builds on (its key BASE, a path relative to it), then its own.

    Raises FileNotFoundError, or UserError if a file is not YAML or the files (`named_by`: those so far) form a circle.
    """
    path = path.resolve()
    if path in named_by:
        circle = " -> ".join(str(file) for file in (*named_by, path))
        raise UserError(f"config files build on each other in a circle: {circle}")
    if not path.is_file():
        by = f", named as BASE in {named_by[-1]}" if named_by else ""
        raise FileNotFoundError(f"no config file at {path}{by}; see the folder configs/ for those that exist")
    options = _parse(path.read_bytes(), str(path))
    if "BASE" not in options:
        return [(str(path), options)]
    base = options.pop("BASE")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: BASE must be the path of a config file, but is {reprlib.repr(base)}")
    return [*read_file(path.parent / base, (*named_by, path)), (str(path), options)]


def read_text(text: str, source: str) -> Source:
    """Options of a YAML text that came inside another file; UserError if it names a BASE, a file of its own choice."""
    options = _parse(text, source)
    if "BASE" in options:
        raise UserError(f"{source} names a file to build on (BASE), which only config files may: not read")
    return source, options


def read_words(words: Sequence[str]) -> Source:
    """Options of a command line: keys and values in turn."""
    if len(words) % 2:
        given = " ".join(map(str, words))
        hint = "; between the two stands a space, not =" if "=" in given else ""
        raise UserError(f"options come in pairs KEY VALUE, but {len(words)} words were given: {given}{hint}")
    return "command line", dict(zip(words[::2], words[1::2], strict=True))


def merge(defaults: CfgNode, sources: Iterable[Source]) -> CfgNode:
    """A frozen copy of the defaults with the options of all sources, of which later ones win.

    Raises UserError for a key that does not exist, with the nearest one, or a value of the wrong type.
    """
    cfg, known = defaults.clone(), flatten(defaults)
    for source, options in sources:
        for key, value in _flatten(options, defaults):
            if key not in known:
                near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0)[0]
                raise UserError(f"{source}: there is no option {reprlib.repr(key)}; the nearest is {near!r}")
            try:
                converted = _as_type_of(known[key], value)
            except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
                given, wanted = reprlib.repr(value)[:100], _type_name(known[key])
                raise UserError(f"{source}: {key} must be of type {wanted}, but is {given}") from None
            cfg.merge_from_list([key, repr(converted)])  # yacs evaluates text
    cfg.freeze()
    return cfg


def flatten(tree: CfgNode) -> dict[str, object]:
    """The options of a tree under their dotted names."""
    return dict(_flatten(tree, tree))


def check_choices(section: str, options: CfgNode, choices: Mapping[str, Collection[str]]) -> None:
    """Raise UserError for an option (a dotted name within the section) whose value is none of its choices."""
    for name, known in choices.items():
        chosen = attrgetter(name)(options)
        if chosen not in known:
            raise UserError(f"{section}.{name} {chosen!r} is not one of {', '.join(known)}")


def check_rules(rules: Mapping[str, bool]) -> None:
    """Raise UserError with the first rule, a sentence, that does not hold."""
    for rule, holds in rules.items():
        if not holds:
            raise UserError(rule)


def check_ranges(cfg: CfgNode, ranges: dict[str, tuple[float, float]]) -> None:
    """Raise UserError for an option outside the range, least and most, of a pattern (`fnmatch`) that its name fits."""
    options = flatten(cfg)
    for pattern, (least, most) in ranges.items():
        for name in fnmatch.filter(options, pattern):
            if not least <= options[name] <= most:
                wanted = f"{least} or more" if most == math.inf else f"between {least} and {most}"
                raise UserError(f"{name} must be {wanted}, not {options[name]}")


def changed_options(before: str, source: str, now: CfgNode) -> list[str]:
    """Options that differ between a YAML text (from `source`) and a tree: "NAME old value -> new value"."""
    old, new = dict(_flatten(_parse(before, source), now)), flatten(now)
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in names]


def _parse(text: str | bytes, source: str) -> dict:
    try:
        options = yaml.load(text, Loader=UniqueKeyLoader)
    except Exception as error:  # values that do not fit their tags, such as !!float x, raise almost anything
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{source} is not a YAML file of options in UTF-8: {reason}") from error
    if not isinstance(options, dict | None):
        raise UserError(f"{source} must hold options as KEY: VALUE, but holds a {type(options).__name__}")
    return options or {}


def _flatten(options: dict, tree: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Options under their dotted names; a dict that is no section of the tree is a value."""
    for key, value in options.items():
        section = tree.get(key)
        if isinstance(section, CfgNode) and isinstance(value, dict):
            yield from _flatten(value, section, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_type_of(default: object, value: object) -> object:
    """A value as its option's type where it is another way to write one; an error of some kind where it is not."""
    if isinstance(default, str) and isinstance(value, bool):
        return "on" if value else "off"  # YAML reads a bare off as False
    if isinstance(value, str) and not isinstance(default, str):
        value = ast.literal_eval(value.capitalize() if isinstance(default, bool) else value)
    if isinstance(default, list) and isinstance(value, list | tuple):
        return [_as_type_of(_element_of(default), element) for element in value]
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError
    return value


def _element_of(default: list) -> object:
    """A value of the type that the elements of a list option have; text if it is empty by default."""
    return default[0] if default else ""


def _type_name(default: object) -> str:
    if isinstance(default, list):
        return f"list of {_type_name(_element_of(default))}"
    return "float (and finite)" if isinstance(default, float) else type(default).__name__
