"""The rules that keep the project in shape, checked on its sources: imports, options, unsafe reads, sizes, scripts."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
import yaml
from yacs.config import CfgNode

from defaults import get_default_cfg, load_cfg
from models import build_model
from utils.options import UniqueKeyLoader

ROOT = Path(__file__).resolve().parents[1]

# Each may import itself and what it is given here: leftwards only.
MAY_IMPORT = {
    "utils": set(),
    "defaults": {"utils"},
    "datasets": {"utils"},
    "models": {"utils"},
    "engine": {"utils", "datasets", "models", "defaults"},
    "tools": {"utils", "datasets", "models", "engine", "defaults"},
    "demo": {"utils", "datasets", "models", "engine", "defaults", "tools"},
}
CONFIG_READERS = (
    "demo.py",
    "tools/*",
    "models/build.py",
    "models/*/build.py",
    "datasets/build.py",
    "engine/networks.py",
    "engine/run.py",
    "engine/solver.py",
    "utils/options.py",
)
CONFIG_NAMES = {"cfg", "CfgNode"}
WEIGHT_READERS = {"utils/tensor_files.py"}
MAX_LINES = 300
LOADS = re.compile(r"(?:torch|np)\.load\(.*")
SAFE = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False"}
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
DOCUMENTS = [ROOT / "README.md", *(file for name in ["docs", *FOLDERS] for file in (ROOT / name).rglob("*.md"))]


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
    importers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if not name.startswith(package)
        and isinstance(node, ast.Import | ast.ImportFrom)
        and re.search(rf"\bmodels(\.| import .*\b){family}\b", ast.unparse(node))
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


def test_config_is_read_by_builders_and_programs_only():
    needed = {target for _, target in imported(TREES["defaults.py"])}
    assert needed - set(sys.stdlib_module_names) == {"yacs", "utils"}
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


def test_files_are_read_as_data_and_nothing_is_imported_by_text():
    unsafe = re.compile(
        r"allow_pickle=True|weights_only=False|\bpickle\.loads?\b|\byaml\.(?:full_|unsafe_)?load(?:_all)?\b"
        r"|(?<![.\w])(?:eval|exec|__import__)\([^)]|\bimport_module\b"
        r"|from (?:torch|numpy|yaml|pickle) import .*load"
    )
    found = [(name, text) for name, source in SOURCES.items() for text in unsafe.findall(source)]
    assert found == [("utils/options.py", "yaml.load")]
    assert "yaml.load(text, Loader=UniqueKeyLoader)" in SOURCES["utils/options.py"]
    assert issubclass(UniqueKeyLoader, yaml.SafeLoader)
    assert {name for name, source in SOURCES.items() if "torch.load(" in source} == WEIGHT_READERS
    given = [(call.partition("(")[0], call) for source in SOURCES.values() for call in LOADS.findall(source)]
    assert given and not [call for function, call in given if SAFE[function] not in call]


def test_configs_load_and_each_has_an_output_folder_of_its_own():
    folders = [get_default_cfg().OUTPUT_DIR, *(load_cfg(path).OUTPUT_DIR for path in CONFIGS)]
    assert len(set(folders)) == len(folders), folders
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in CONFIGS if f"`{path.name}`" not in text], "README.md names every config"


class Recorder:
    """Options that add to `read` the names of those that code takes from them."""

    def __init__(self, tree: CfgNode, read: set[str], prefix: str = ""):
        self._tree, self._read, self._prefix = tree, read, prefix

    def __getattr__(self, name: str) -> object:
        value = getattr(self._tree, name)
        if isinstance(value, CfgNode):
            return Recorder(value, self._read, f"{self._prefix}{name}.")
        self._read.add(f"{self._prefix}{name}")
        return value

    def items(self) -> list[tuple[str, object]]:
        return [(name, getattr(self, name)) for name in self._tree]


def test_every_option_is_read_and_every_one_read_exists():
    """Those of the model by building networks; the code reads others from `cfg`, `inputs` or `solver`."""
    read = set()
    for path in (ROOT / "configs" / "releases").glob("*_prw.yaml"):
        with torch.device("meta"):
            build_model(Recorder(load_cfg(path, ["MODEL.BACKBONE.WEIGHTS", "none"]), read), pretrained=True)
    code = "\n".join(source for name, source in SOURCES.items() if reads_config(name))
    code = re.sub(
        r"\binputs\.(?=[A-Z])", "cfg.INPUT.", re.sub(r"(?<!engine\.)\bsolver\.(?=[A-Z])", "cfg.SOLVER.", code)
    )
    read |= set(re.findall(r"\bcfg\.([A-Z][A-Z0-9_.]*)", code))
    known = set(leaves(get_default_cfg()))
    assert known <= read, "options that no code reads"
    sections = {".".join(option.split(".")[:depth]) for option in known for depth in range(1, option.count(".") + 1)}
    assert read <= known | sections, "options that do not exist"


def test_files_are_short():
    long = {name: source.count("\n") for name, source in SOURCES.items() if source.count("\n") > MAX_LINES}
    assert not long, "split them: a file has one job"


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
    text, known = path.read_text(encoding="utf-8"), [f"{option}." for option in leaves(get_default_cfg())]
    links = [link.partition("#")[0] for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^):]+)\)", text)]
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in OPTION.findall(text) if not any(option.startswith(f"{name}.") for option in known)]
    programs = [ROOT / "tools" / name for name in re.findall(r"python -m tools\.([a-z_]+)", text)]
    missing += [path for path in programs if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists())]
    files = re.findall(r"(?:sh|bash) (?:\./)?(\w+\.sh)|\b(configs/\w+\.yaml)", text)
    missing += [name for pair in files for name in pair if name and not (ROOT / name).is_file()]
    assert not missing
