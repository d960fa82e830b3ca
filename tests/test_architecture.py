"""The rules that keep the project in shape, checked on its sources: imports, options, unsafe reads, sizes, scripts."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
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
CONFIG_READERS = {
    "demo.py",
    "models/build.py",
    "models/two_stage/build.py",
    "datasets/build.py",
    "engine/solver.py",
    "utils/options.py",
}
CONFIG_NAMES = {"cfg", "CfgNode"}
WEIGHT_READERS = {"utils/tensor_files.py"}
MAX_LINES = 300

FOLDERS = [name for name in MAY_IMPORT if (ROOT / name).is_dir()]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])
}
TREES = {name: ast.parse(source, filename=name) for name, source in SOURCES.items()}
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SCRIPTS = sorted([*ROOT.glob("*.sh"), *(ROOT / "tools").glob("*.sh"), ROOT / ".ci" / "run"])
DOCUMENTS = sorted([ROOT / "README.md", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md"))])


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
    return name in CONFIG_READERS or package_of(name) == "tools"


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


def test_every_option_is_read():
    attributes, whole_sections = set(), set()
    for name, tree in TREES.items():
        if reads_config(name):
            nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
            attributes |= {node.attr for node in nodes}
            whole_sections |= {
                node.value.attr for node in nodes if node.attr == "items" and hasattr(node.value, "attr")
            }
    unread = []
    for option in leaves(get_default_cfg()):
        *sections, leaf = option.split(".")
        by_section = bool(sections) and sections[-1] in whole_sections
        if not (attributes.issuperset(sections) and (leaf in attributes or by_section)):
            unread.append(option)
    assert not unread, "options that no code reads"


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
    options = re.findall(r"\b(?:INPUT|MODEL|SOLVER|EVAL)\.[A-Z0-9_.]*[A-Z0-9]", text)
    missing += [name for name in options if not any(f"{option}.".startswith(f"{name}.") for option in known)]
    programs = re.findall(r"python -m tools\.([a-z_]+)", text)
    missing += [name for name in programs if not (ROOT / "tools" / f"{name}.py").is_file()]
    files = re.findall(r"(?:sh|bash) (?:\./)?(\w+\.sh)|\b(configs/\w+\.yaml)", text)
    missing += [name for pair in files for name in pair if name and not (ROOT / name).is_file()]
    assert not missing


def test_readme_names_every_config():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in CONFIGS if f"`{path.name}`" not in text]
