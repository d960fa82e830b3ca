"""Reading image files of any common kind as RGB."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.files import target_outside
from utils.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Pillow's names of the kinds of images that are read, MPO with JPEG. Of its others, some start programs (EPS)."""

MAX_PIXELS = 80_000_000
"""Largest image read unless a caller says otherwise: below the size at which Pillow suspects a decompression bomb."""

_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    SystemError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise for damaged files; garbled sizes ask for absurd amounts of memory."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1

_WIDE_RAW_MODE = re.compile(";16[BLN]")
"""In Pillow's name for how pixels are stored: sixteen bits per channel, in some byte order."""
_WIDE_GREY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WIDE_TO_BYTE = 257
"""65535 / 255: sixteen-bit grey is scaled, where Pillow's own conversion would clip it."""


class ImageError(ValueError):
    """An image file that cannot be used; the message names the file and says what to do.

    `kind` is one of "missing", "empty", "damaged", "other" (no image), "large", "float" and "linked".
    """

    def __init__(self, message: str, kind: str = "damaged"):
        super().__init__(message)
        self.kind = kind


def _fault(message: str, kind: str = "damaged") -> ImageError:
    # Not in ImageError itself, which a loader raises again with the lines of its worker's traceback.
    return ImageError(printable(message), kind)


@dataclass(frozen=True)
class ImageReader:
    """`read_image` with a dataset's limits.

    Attributes:
        max_pixels: largest image, width x height (the option INPUT.MAX_PIXELS).
        within: real path of the folder that links may not leave; None allows all.

    Raises:
        ValueError: `max_pixels` is not positive.
    """

    max_pixels: int = MAX_PIXELS
    within: str | None = None

    def __post_init__(self):
        if self.max_pixels < 1:
            raise ValueError(f"INPUT.MAX_PIXELS must be 1 or more, not {self.max_pixels}")

    def __call__(self, path: str | Path) -> np.ndarray:
        """The pixels of a file, see `read_image`."""
        return read_image(path, self.max_pixels, self.within)

    def inspect(self, path: str | Path) -> "ImageFacts":
        """What the file stores; it is decoded whole, so that damage shows. Raises ImageError as `read_image`."""
        with _opened(Path(path), self.max_pixels, self.within) as image:
            wide = image.mode.startswith("I") or any(_WIDE_RAW_MODE.search(str(tile.args)) for tile in image.tile)
            orientation = image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)  # decodes a PNG, which forgets its tiles
            facts = ImageFacts(*image.size, image.mode, wide, "transparency" in image.info, orientation != _UPRIGHT)
            _as_rgb(Path(path), image)
        return facts


class ImageFacts(NamedTuple):
    """How an image is stored."""

    width: int
    height: int
    mode: str
    """Pillow's name of the pixels' kind, as RGB, L or CMYK."""
    wide: bool
    """Whether a channel has sixteen bits or more."""
    transparency: bool
    """Whether a colour is marked as transparent (modes with an alpha channel aside)."""
    turned: bool
    """Whether a tag asks for another orientation than the stored one."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS, within: str | None = None) -> np.ndarray:
    """The pixels of an image file as stored: a camera's orientation tag is not applied, since boxes refer to stored
    pixels.

    Grey, palette, CMYK, sixteen-bit and transparent images become RGB (transparency is dropped, the stored colour
    kept); of an animation the first picture is read.

    Args:
        path: the file.
        max_pixels: a larger image (width x height) is refused before its pixels are read.
        within: real path of a folder; a path that a link takes out of it is refused unread. None allows all.

    Returns:
        uint8, H x W x 3, RGB.

    Raises:
        ImageError: no such file, an empty, damaged or truncated one, not an image, one that is too large, or a link
            out of the folder.
    """
    path = Path(path)
    with _opened(path, max_pixels, within) as image:
        return _as_rgb(path, image)


@contextmanager
def _opened(path: Path, max_pixels: int, within: str | None) -> Iterator[Image.Image]:
    """An image file, not decoded yet; what goes wrong inside the block becomes an ImageError too."""
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow warns beyond its own limit, and refuses twice as much: a caller's larger one must hold there too.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        _check_file(path, within)
        with Image.open(path, formats=FORMATS) as image:
            _check_size(path, image, max_pixels)
            yield image
    except Image.DecompressionBombError as error:
        raise _fault(f"{path} is too large ({error}): scale it down or raise INPUT.MAX_PIXELS", "large") from error
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise _fault(f"{path} is not an image of a known kind: copy it again, or leave it out", "other") from error
    except _DECODE_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise _fault(f"{path} cannot be read as an image ({reason}): copy it again, or leave it out") from error


def _check_file(path: Path, within: str | None) -> None:
    """Refuse what is no file with content inside the folder `within`, where one is given."""
    outside = target_outside(path, within) if within is not None else None
    if outside is not None:
        raise _fault(
            f"{path} is, or lies behind, a link to {outside}, out of the dataset's folder {within}, which is not "
            "followed: put the images inside it, or move the whole dataset and link or name its own folder "
            "(INPUT.DATA_ROOT)",
            "linked",
        )
    if not path.exists():
        raise _fault(f"no image file {path}: check the path, or that the dataset was unpacked completely", "missing")
    if not path.is_file():
        raise _fault(f"{path} is not a file: copy it again, or leave it out", "other")
    if path.stat().st_size == 0:
        raise _fault(f"{path} is an empty file: copy or download it again", "empty")


def _check_size(path: Path, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _fault(
            f"{path} is {width} x {height}, more than {max_pixels} pixels: scale it down or raise INPUT.MAX_PIXELS",
            "large",
        )


def _as_rgb(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise _fault(
            f"{path} has floating point pixels, whose range is unknown: save it with 8 bits per channel", "float"
        )
    if image.mode in _WIDE_GREY_MODES:
        grey = np.asarray(image).astype(np.int64) // _WIDE_TO_BYTE
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparent entries must pass through RGBA
    return np.array(image.convert("RGB"))
