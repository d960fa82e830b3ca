"""Reading image files of any common kind as RGB."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MAX_PIXELS = 80_000_000
"""Largest image read unless a caller says otherwise: below the size at which Pillow suspects a decompression bomb."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)
"""What Pillow's readers are known to raise for damaged files."""

_WIDE_GREY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WIDE_TO_BYTE = 257
"""65535 / 255: sixteen-bit grey is scaled, where Pillow's own conversion would clip it."""


class ImageError(ValueError):
    """An image file that cannot be used; the message names the file and says what to do."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file as stored: a camera's orientation tag is not applied, since boxes refer to stored
    pixels.

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
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"no image file {path}: check the path, or that the dataset was unpacked completely")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is an empty file: copy or download it again")
    try:
        with Image.open(path) as image:
            _check_size(path, image, max_pixels)
            return _as_rgb(path, image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large ({error}): scale it down") from error
    except ImageError:
        raise
    except _DECODE_ERRORS as error:
        raise ImageError(f"{path} cannot be read as an image ({error}): copy it again, or leave it out") from error


def _check_size(path: Path, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path} is {width} x {height}, more than {max_pixels} pixels: scale it down or raise the limit"
        )


def _as_rgb(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(f"{path} has floating point pixels, whose range is unknown: save it with 8 bits per channel")
    if image.mode in _WIDE_GREY_MODES:
        grey = np.asarray(image).astype(np.int64) // _WIDE_TO_BYTE
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparent entries must pass through RGBA
    return np.array(image.convert("RGB"))
