"""A folder of results that is replaced as a whole, and never one that holds anything else."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError
from utils.files import write_json

MANIFEST = ".files.json"
"""Lists the files of the folder, by which its own files are told from the user's."""


class OutputFolder:
    """Collects files in a temporary folder beside `path`, and puts it in the place of `path` at the end.

    Args:
        path: the folder; an earlier one of this class is replaced, and stays as it is until `commit`.
        inputs: the files that the program reads.
        input_folders: the folders that it searches for inputs.

    Raises:
        UserError: the folder holds files that this class did not write, or inputs, or lies in a folder of inputs.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = (), input_folders: Iterable[Path] = ()):
        self.path = Path(path)
        _check_place(self.path, inputs, input_folders)
        self._foreign_files()
        self._made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.part = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))

    def commit(self) -> None:
        """Replace the folder by the files in `part`."""
        names = sorted(file.relative_to(self.part).as_posix() for file in self.part.rglob("*") if file.is_file())
        write_json(self.part / MANIFEST, names)
        self.part.chmod(0o755)  # tempfile makes folders for the user alone
        self._foreign_files()
        if self.path.exists():
            shutil.rmtree(self.path)
        self.part.rename(self.path)

    def discard(self) -> None:
        """Remove `part`, leaving everything as it was; does nothing after `commit`."""
        shutil.rmtree(self.part, ignore_errors=True)
        with suppress(OSError):  # after `commit` they are not empty
            for folder in self._made:
                folder.rmdir()

    def _foreign_files(self) -> None:
        """Raise UserError where the folder holds files that its manifest does not list."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another output folder")
        manifest = self.path / MANIFEST
        try:
            own = {MANIFEST, *json.loads(manifest.read_text(encoding="utf-8"))} if manifest.is_file() else set()
        except (ValueError, TypeError) as error:
            raise UserError(f"{manifest} is damaged: choose another output folder") from error
        files = (file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if not file.is_dir())
        foreign = sorted(set(files) - own)
        if foreign:
            some = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
            raise UserError(
                f"{self.path} holds files that this program did not write ({some}): choose another output folder"
            )


def _check_place(path: Path, inputs: Iterable[Path], input_folders: Iterable[Path]) -> None:
    place = path.resolve()
    for file in inputs:
        if place in file.resolve().parents:
            raise UserError(f"{path} holds the picture {file}: choose another output folder")
    for folder in input_folders:
        if place == folder.resolve() or folder.resolve() in place.parents:
            raise UserError(f"{path} lies in {folder}, which is searched: choose an output folder elsewhere")
