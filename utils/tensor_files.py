"""Files of torch.save, read as data only."""

import errno
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import torch

from utils.errors import UserError

_ZIP_MAGIC = b"PK\x03\x04"
_FOLDER = 0x10  # bit of an archive entry's attributes: PyTorch reads nothing of such an entry, so its tensor is garbage


def read_tensor_file(path: Path, kind: str) -> object:
    """Content of a file of torch.save, tensors on the CPU. A file that holds code is refused and runs nothing.

    The zip archives that torch.save writes hold checksums, which torch.load does not compare; here they are. Plain
    pickles of PyTorch before 1.6 have none.

    Args:
        path: the file.
        kind: name of such a file in errors.

    Raises:
        OSError: the file is missing or cannot be opened, or it is undamaged but memory does not suffice.
        UserError: the file is damaged, or holds anything but data.
    """
    undamaged = False
    with path.open("rb") as file:  # before reading: a file that cannot be opened is not a damaged one
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    try:
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                undamaged = archive.testzip() is None and not any(e.external_attr & _FOLDER for e in archive.infolist())
            if not undamaged:
                raise zipfile.BadZipFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice on files of other kinds
            with torch.serialization.safe_globals([Namespace]):  # data alone; files of DINO and SOLIDER hold one
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # parsers trust what they read: a damaged file raises almost anything
        if undamaged and (isinstance(error, MemoryError) or "allocate memory" in str(error)):
            raise OSError(errno.ENOMEM, "there is not enough memory to read", str(path)) from error
        # PyTorch's own message is left out: it advises to run the file's code.
        raise UserError(
            f"{path} is damaged, or is not a {kind} of data alone: fetch or copy it again, or take another one"
        ) from error
