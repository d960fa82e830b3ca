"""The rules that keep the project in shape, checked on its sources: imports, options, unsafe reads, sizes, scripts."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from yacs.config import CfgNode

from defaults import get_default_cfg, load_cfg
from utils.options import UniqueKeyLoader

ROOT = Path(__file__).resolve().parents[1]

# Each may import itself and what it is given here: leftwards only.
MAY_IMPORT = {
    "utils": set(),
    "defaults": {"utils"},
    "datasets": {"utils"},
    "models": {"utils"},
    "engine": {"utils", "datasets", "models"},
    "tools": {"utils", "datasets", "models", "engine", "defaults"},
    "demo": {"utils", "datasets", "models", "engine", "defaults", "tools"},
}
CONFIG_READERS = (
    "demo.py",
    "tools/*",
    "models/build.py",
    "models/*/build.py",
    "datasets/build.py",
    "engine/run.py",
    "engine/solver.py",
    "utils/options.py",
)
CONFIG_NAMES = {"cfg", "CfgNode"}
WEIGHT_READERS = {"utils/tensor_files.py"}
MAX_LINES = 300
OPTION = re.compile(r"\b(?:INPUT|MODEL|SOLVER|EVAL)\.[A-Z][A-Z0-9_.]*[A-Z0-9]")

FOLDERS = [name for name in MAY_IMPORT if (ROOT / name).is_dir()]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])
}
TREES = {name: ast.parse(source, filename=name) for name, source in SOURCES.items()}
FAMILIES = [folder.name for folder in (ROOT / "models").iterdir() if (folder / "build.py").is_file()]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SCRIPTS = sorted([*ROOT.glob("*.sh"), *(ROOT / "tools").glob("*.sh"), ROOT / ".ci" / "run"])
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md")),
    ]
)


def package_of(name: str) -> str:
    """The top-level package or module that a source file belongs to."""
    return name.partition("/")[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level package of each import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "a relative import" if node.level else node.module.partition(".")[0]


def dotted(node: ast.AST) -> str:
    """The text of a chain of names, as in `np.load`; empty for anything else."""
    if isinstance(node, ast.Attribute):
        prefix = dotted(node.value)
        return f"{prefix}.{node.attr}" if prefix else ""
    return node.id if isinstance(node, ast.Name) else ""


def real_names(tree: ast.AST) -> dict[str, str]:
    """What a file's imports call things -> what they are: `np` -> `numpy`, `load` -> `torch.load`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uses(tree: ast.AST, function: str) -> Iterator[tuple[ast.AST, ast.Call | None]]:
    """Every mention of a library's function, whatever name it goes by, and the call it is the function of, if it is."""
    names = real_names(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, dot, rest = dotted(node).partition(".")
            if names.get(first, first) + dot + rest == function:
                yield node, calls.get(id(node))


def passes(call: ast.Call | None, argument: str, value: object) -> bool:
    """Whether a call has `argument=value`, written out."""
    given = {keyword.arg: keyword.value for keyword in (call.keywords if call else [])}
    return isinstance(given.get(argument), ast.Constant) and given[argument].value is value


def leaves(cfg: CfgNode, prefix: str = "") -> dict[str, object]:
    """Every option of a tree under its dotted name."""
    flat = {}
    for name, value in cfg.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else {f"{prefix}{name}": value}
    return flat


def reads_config(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in CONFIG_READERS)


def test_sources_are_found():
    assert {package_of(name) for name in SOURCES} == set(MAY_IMPORT), "a new package needs its place in MAY_IMPORT"
    assert CONFIGS
    assert {"quickstart.sh", "run_tests.sh", "launch.sh", "run"} <= {script.name for script in SCRIPTS}
    assert len(DOCUMENTS) > 3


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_leftwards(package):
    allowed = MAY_IMPORT[package] | {package}
    ours = {*MAY_IMPORT, "tests", "a relative import"}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, tree in TREES.items()
        if package_of(name) == package
        for line, target in imported(tree)
        if target in ours - allowed
    ]
    assert not wrong, f"{package} may import {sorted(allowed)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_named_by_the_registry_alone(family):
    package = f"models/{family}/"
    others = {name: tree for name, tree in TREES.items() if not name.startswith(package)}
    importers = {
        name
        for name, tree in others.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and f"models.{family}" in ast.unparse(node)
        or isinstance(node, ast.ImportFrom)
        and node.module == "models"
        and family in {a.name for a in node.names}
    }
    assert importers == {"models/build.py"}


def test_option_names_stand_in_messages_of_builders_and_programs_only():
    allowed = (*CONFIG_READERS, "defaults.py", "engine/*")
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if not any(fnmatch(name, pattern) for pattern in allowed)
        for raised in ast.walk(tree)
        if isinstance(raised, ast.Raise)
        for node in ast.walk(raised)
        if isinstance(node, ast.Constant) and OPTION.search(str(node.value))
    ]
    assert not wrong


def test_nothing_is_imported_by_text():
    hidden = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for function in ("importlib.import_module", "__import__")
        for node, _ in uses(tree, function)
    ]
    assert not hidden, "imports by text escape the check of imports"


def test_defaults_need_nothing_but_yacs():
    needed = {target for _, target in imported(TREES["defaults.py"])}
    assert needed - set(sys.stdlib_module_names) == {"yacs", "utils"}


def test_config_is_read_by_builders_and_programs_only():
    wrong = []
    for name, tree in TREES.items():
        if reads_config(name) or name == "defaults.py":
            continue
        wrong += [
            f"{name}:{line} imports {target}" for line, target in imported(tree) if target in ("yacs", "defaults")
        ]
        for node in ast.walk(tree):
            named = {getattr(node, field, None) for field in ("id", "arg", "attr")} & CONFIG_NAMES
            wrong += [f"{name}:{node.lineno} names {word}" for word in named]
    assert not wrong, "pass plain values instead of the config"


def test_weights_are_read_as_data():
    found = [(name, node.lineno, call) for name, tree in TREES.items() for node, call in uses(tree, "torch.load")]
    assert {name for name, _, _ in found} == WEIGHT_READERS
    assert not [f"{name}:{line}" for name, line, call in found if not passes(call, "weights_only", True)]


def test_arrays_are_read_without_pickle():
    found = [(name, node.lineno, call) for name, tree in TREES.items() for node, call in uses(tree, "numpy.load")]
    assert found
    assert not [f"{name}:{line}" for name, line, call in found if not passes(call, "allow_pickle", False)]


def test_yaml_is_read_as_data():
    unsafe = [f"yaml.{kind}load{many}" for kind in ("", "full_", "unsafe_") for many in ("", "_all")]
    found = [(name, call) for name, tree in TREES.items() for function in unsafe for _, call in uses(tree, function)]
    assert [(name, ast.unparse(call)) for name, call in found] == [
        ("utils/options.py", "yaml.load(text, Loader=UniqueKeyLoader)")
    ]
    assert issubclass(UniqueKeyLoader, yaml.SafeLoader)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads(path):
    assert load_cfg(path).is_frozen()


def test_each_config_has_an_output_folder_of_its_own():
    folders = [get_default_cfg().OUTPUT_DIR, *(load_cfg(path).OUTPUT_DIR for path in CONFIGS)]
    assert len(set(folders)) == len(folders), folders


def sections(node: ast.AST, scope: dict[str, set[str]]) -> set[str]:
    """The sections of the options that an expression may be, with a dot behind; "" is the whole tree."""
    if isinstance(node, ast.Attribute) and node.attr.isupper():
        return {f"{section}{node.attr}." for section in sections(node.value, scope)}
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return {""} if name.lstrip("_") == "cfg" else scope.get(name, set())


def options_read(tree: ast.Module) -> set[str]:
    """Every option that a file reads: attributes of `cfg`, and of sections in variables and in arguments of functions.

    A section of which the file takes all `items` comes as `SECTION.*`.
    """
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    tables = {dotted(target): value for node in tree.body for target, value in assigned(node)}
    scopes, read = {name: {} for name in functions}, set()
    nodes = [(scopes[name], node) for name, function in functions.items() for node in ast.walk(function)]
    for scope, node in nodes * len(functions):  # sections may be handed on as often
        for target, value in assigned(node):
            scope.setdefault(dotted(target), set()).update(sections(value, scope))
        if isinstance(node, ast.Attribute):
            whole = node.attr == "items"
            found = sections(node.value if whole else node, scope)
            read |= {f"{section}*" if whole else section[:-1] for section in found}
        elif isinstance(node, ast.Call):
            named = {dotted(part) for part in ast.walk(node.func)}
            named |= {dotted(part) for table in named & tables.keys() for part in ast.walk(tables[table])}
            for called in named & functions.keys():
                for parameter, argument in zip(functions[called].args.args, node.args, strict=False):
                    scopes[called].setdefault(parameter.arg, set()).update(sections(argument, scope))
    return read


def assigned(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """The targets and values of an assignment, one by one."""
    if isinstance(node, ast.AnnAssign) and node.value:
        return [(node.target, node.value)]
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    return list(zip(target.elts, value.elts, strict=False)) if both else [(target, value)]


def test_every_option_is_read():
    read = set().union(*(options_read(tree) for name, tree in TREES.items() if reads_config(name)))
    unread = [option for option in leaves(get_default_cfg()) if not {option, f"{option.rpartition('.')[0]}.*"} & read]
    assert not unread, "options that no code reads"


def test_an_option_with_the_name_of_another_counts_as_read_in_its_own_section_only():
    source = """
TABLE = {"rpn": build_rpn}
def build(cfg):
    model = cfg.MODEL
    TABLE["rpn"](model.RPN, 3)
    return cfg.SEED, list(model.LOSS_WEIGHTS.items())
def build_rpn(options, channels):
    return options.NMS_THRESH + head.SCORE_THRESH
"""
    read = options_read(ast.parse(source))
    assert read >= {"SEED", "MODEL.RPN.NMS_THRESH", "MODEL.LOSS_WEIGHTS.*"}
    assert not [option for option in read if option.endswith("SCORE_THRESH")]


def test_every_option_read_exists():
    tree = get_default_cfg()
    sections = {option.rpartition(".")[0] for option in leaves(tree)}
    known = {*leaves(tree), *sections, *(section.partition(".")[0] for section in sections)}
    read = {
        match: name
        for name, source in TREES.items()
        if reads_config(name)
        for node in ast.walk(source)
        for match in re.findall(r"^(?:self\.)?cfg\.([A-Z][A-Z0-9_.]*)$", dotted(node))
    }
    assert len(read) > 20
    assert not {option: name for option, name in read.items() if option not in known}, "no such option in defaults.py"


@pytest.mark.parametrize("name", SOURCES)
def test_file_is_short(name):
    assert len(SOURCES[name].splitlines()) <= MAX_LINES, "split it: a file has one job"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_parses(path):
    text = path.read_text(encoding="utf-8")
    shell = "bash" if "bash" in text.partition("\n")[0] else "sh"
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"configs/\w+\.yaml", text)
    assert not [config for config in named if not (ROOT / config).is_file()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document_names_what_exists(path):
    """Files linked to (pictures aside), options, programs, scripts and configs that a document speaks of."""
    text = path.read_text(encoding="utf-8")
    links = {
        target.partition("#")[0] for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text) if ":" not in target
    }
    missing = [target for target in links if target and not (path.parent / target).exists()]
    tree = get_default_cfg()
    known = leaves(tree)
    options = OPTION.findall(text)
    missing += [name for name in options if not any(f"{option}.".startswith(f"{name}.") for option in known)]
    programs = re.findall(r"python -m tools\.([a-z_]+)", text)
    missing += [
        name
        for name in programs
        if not any((ROOT / "tools" / file).is_file() for file in (f"{name}.py", f"{name}/__main__.py"))
    ]
    files = re.findall(r"(?:sh|bash) (?:\./)?(\w+\.sh)|\b(configs/\w+\.yaml)", text)
    missing += [name for pair in files for name in pair if name and not (ROOT / name).is_file()]
    assert not missing


def test_readme_names_every_config():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in CONFIGS if f"`{path.name}`" not in text]
