"""Reading image files of any common kind as RGB."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import UserError
from utils.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Pillow's names of the kinds of images that are read, MPO with JPEG. Of its others, some start programs (EPS)."""

MAX_PIXELS = 80_000_000
"""Largest image read unless a caller says otherwise: below the size at which Pillow suspects a decompression bomb."""

_ORIENTATION_TAG, _UPRIGHT = 0x0112, 1
_WIDE_RAW_MODE = re.compile(";16[BLN]")
"""In Pillow's name for how pixels are stored: sixteen bits per channel, in some byte order."""
_WIDE_GREY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WIDE_TO_BYTE = 257
"""65535 / 255: sixteen-bit grey is scaled, where Pillow's own conversion would clip it."""


class ImageError(UserError):
    """An image file that cannot be used; the message names the file and says what to do.

    Args:
        message: the message.
        kind: one of "missing", "empty", "damaged", "other" (not an image), "large" and "float".
    """

    def __init__(self, message: str, kind: str = "damaged"):
        super().__init__(message)
        self.kind = kind


class ImageFacts(NamedTuple):
    """How an image is stored.

    Attributes:
        mode: Pillow's name of the kind of pixels, as RGB, L or CMYK.
        wide: whether a channel has sixteen bits or more.
        transparency: whether a colour is marked as transparent (modes with an alpha channel aside).
        turned: whether a tag asks for another orientation than the stored one.
    """

    width: int
    height: int
    mode: str
    wide: bool
    transparency: bool
    turned: bool


@dataclass(frozen=True)
class ImageReader:
    """`read_image` with a limit: images with more than `max_pixels` (width x height) are refused."""

    max_pixels: int = MAX_PIXELS

    def __call__(self, path: str | Path) -> np.ndarray:
        """The pixels of a file, see `read_image`."""
        return read_image(path, self.max_pixels)

    def inspect(self, path: str | Path) -> ImageFacts:
        """How a file stores its image. It is decoded completely, so ImageError is raised as by `read_image`."""
        with _opened(Path(path), self.max_pixels) as image:
            wide = image.mode.startswith("I") or any(_WIDE_RAW_MODE.search(str(tile.args)) for tile in image.tile)
            orientation = image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)  # decodes a PNG, which forgets its tiles
            facts = ImageFacts(*image.size, image.mode, wide, "transparency" in image.info, orientation != _UPRIGHT)
            _as_rgb(Path(path), image)
        return facts


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file as stored: no orientation tag is applied, for boxes refer to stored pixels.

    Grey, palette, CMYK, sixteen-bit and transparent images become RGB (transparency is dropped, the stored colour
    kept); of an animation the first picture is read.

    Args:
        path: the file.
        max_pixels: a larger image (width x height) is refused before its pixels are read.

    Returns:
        uint8, H x W x 3, RGB.

    Raises:
        ImageError: no such file, an empty, damaged or truncated one, not an image, or one that is too large.
    """
    with _opened(Path(path), max_pixels) as image:
        return _as_rgb(Path(path), image)


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """An image file, not decoded yet; what goes wrong inside the block becomes an ImageError too."""
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow warns beyond its own limit, and refuses twice as much: a caller's larger one must hold there too.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        if not path.exists():
            raise _fault(f"no image file {path}: check the path, and that the dataset is complete", "missing")
        if not path.is_file():
            raise _fault(f"{path} is not a file: copy it again, or leave it out", "other")
        if path.stat().st_size == 0:
            raise _fault(f"{path} is an empty file: copy or download it again", "empty")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                size = f"{width} x {height}, more than {max_pixels} pixels"
                raise _fault(f"{path} is {size}: scale it down or raise MAX_PIXELS", "large")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _fault(f"{path} is too large ({error}): scale it down or raise MAX_PIXELS", "large") from error
    except UnidentifiedImageError as error:
        raise _fault(f"{path} is not an image of a known kind: copy it again, or leave it out", "other") from error
    except Exception as error:  # whatever Pillow's readers raise for damaged files, MemoryError included
        reason = str(error) or type(error).__name__
        raise _fault(f"{path} cannot be read as an image ({reason}): copy it again, or leave it out") from error


def _fault(message: str, kind: str = "damaged") -> ImageError:
    # Not in ImageError itself, which a loader raises again with the lines of its worker's traceback.
    return ImageError(printable(message), kind)


def _as_rgb(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise _fault(f"{path} has floating point pixels of unknown range: save it with 8 bits per channel", "float")
    if image.mode in _WIDE_GREY_MODES:
        grey = np.asarray(image).astype(np.int64) // _WIDE_TO_BYTE
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparent entries must pass through RGBA
    return np.array(image.convert("RGB"))
