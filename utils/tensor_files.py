"""Files that torch.save wrote, read as data."""

import errno
import warnings
import zipfile
from pathlib import Path

import torch

from utils.checksum import is_as_written


def read_tensor_file(path: Path, kind: str) -> object:
    """What a file of torch.save holds, with its tensors on the CPU. A file that holds code is refused and runs nothing.

    Args:
        path: the file.
        kind: what errors call such a file.

    Raises:
        OSError: there is no such file, it cannot be opened, or it is whole but memory does not suffice.
        ValueError: the file is damaged, or holds anything but data.
    """
    with path.open("rb"):  # one that cannot be opened may be whole
        pass
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice on files of other kinds
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the parsers trust what they read, so a damaged file raises almost anything
        if _lacks_memory(error) and is_as_written(path):
            raise OSError(errno.ENOMEM, "there is not enough memory to read", str(path)) from error
        # PyTorch's own message is left out: it advises to run the file's code.
        raise ValueError(
            f"{path} is damaged, or is not a {kind} of data alone: fetch or copy it anew, or take another one"
        ) from error


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def _check_sums(path: Path) -> None:
    """Compare a file with its checksum, or in files of others with those of the zip archives that torch.save writes.

    PyTorch looks at neither when it reads.

    Raises:
        Exception: of any kind; the file is not what was written.
    """
    as_written = is_as_written(path)
    if as_written is False:
        raise ValueError("the checksum is wrong")
    if as_written is None and zipfile.is_zipfile(path):  # PyTorch before 1.6 wrote plain pickles
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
