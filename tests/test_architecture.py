"""The rules that keep the project in shape, checked on its sources: imports, options, unsafe reads, sizes, scripts."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import dropwhile, groupby
from pathlib import Path

import pytest
import torch
import yaml
from yacs.config import CfgNode

from defaults import get_default_cfg, load_cfg
from models import build_model
from tools.common import check_options
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
CONFIG_READERS = ("demo.py", "tools/*", "models/build.py", "models/*/build*.py", "datasets/build.py")
CONFIG_READERS += ("engine/networks.py", "engine/run.py", "engine/solver.py", "utils/options.py")
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
PROGRAMS = [ROOT / name for name, source in SOURCES.items() if "run_program(main, parse_args())" in source]
SCRIPTS = sorted([*ROOT.glob("*.sh"), *(ROOT / "tools").glob("*.sh"), ROOT / ".ci" / "run"])
DOCUMENTS = [ROOT / "README.md", *(file for name in ["docs", *FOLDERS] for file in (ROOT / name).rglob("*.md"))]


def package_of(name: str) -> str:
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


def test_imports_go_leftwards():
    ours = {*MAY_IMPORT, "tests", "a relative import"}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, tree in TREES.items()
        for line, target in imported(tree)
        if target in ours - MAY_IMPORT[package_of(name)] - {package_of(name)}
    ]
    assert not wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_named_by_the_registry_alone(family):
    naming = re.compile(rf"^\s*(?:from|import) .*\bmodels(?:\.| import .*\b){family}\b", re.MULTILINE)
    others = {name: source for name, source in SOURCES.items() if not name.startswith(f"models/{family}/")}
    assert {name for name, source in others.items() if naming.search(source)} == {"models/build.py"}


def test_config_is_read_by_builders_and_programs_only():
    needed = {target for _, target in imported(TREES["defaults.py"])}
    assert needed - set(sys.stdlib_module_names) == {"yacs", "utils"}
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if not reads_config(name) and name != "defaults.py"
        for node in ast.walk(tree)
        if {getattr(node, field, None) for field in ("id", "arg", "attr", "name")} & {"cfg", "CfgNode"}
    ]
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
    assert {name for name, source in SOURCES.items() if "torch.load(" in source} == {"utils/tensor_files.py"}
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
    configs = ROOT / "configs"
    for path in [*(configs / "releases").glob("*_prw.yaml"), configs / "glcnet_companions_prw.yaml"]:
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


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_program_shows_its_arguments_from_any_folder_without_waiting_for_torch(path, tmp_path):
    command = [sys.executable, "-X", "importtime", path.parent if path.stem == "__main__" else path, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    example = rf"^    {'python demo.py' if path.name == 'demo.py' else 'python -m tools'}.* "
    assert "--traceback" in done.stdout and re.search(example, done.stdout, re.MULTILINE)
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


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


def commands(document: str) -> Iterator[list[str]]:
    """The words of each command in the blocks of shell commands, without variables before it."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", document, re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        for is_end, words in groupby(shlex.split(line, comments=True), lambda word: word in ("&&", "|", ">", ";")):
            if not is_end:
                yield list(dropwhile(re.compile(r"[A-Z_]+=").match, words))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_of_a_document_are_understood(path, monkeypatch):
    """Arguments of the project's programs, and options and their values among them."""
    monkeypatch.chdir(ROOT)
    for words in commands(path.read_text(encoding="utf-8")):
        if words[:2] == ["python", "demo.py"]:
            program, arguments = "demo", words[2:]
        elif "-m" in words and (place := words.index("-m") + 1) and words[place].startswith("tools."):
            program, arguments = words[place], words[place + 1 :]
        else:
            continue
        if (ROOT / program.replace(".", "/")).is_dir():
            program += ".__main__"
        args = importlib.import_module(program).parse_args(arguments)
        if not any("$" in word for word in words):
            check_options(load_cfg(getattr(args, "cfg", None), getattr(args, "opts", [])))
