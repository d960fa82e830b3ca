"""Reading image files of any common kind as RGB."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.errors import UserError
from utils.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Pillow's names of the kinds of images that are read, MPO with JPEG. Of its others, some start programs (EPS)."""
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".mpo")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Pictures of Apple's and other phones, which Pillow reads with the package pillow-heif."""

MAX_PIXELS = 80_000_000
"""Largest image read unless a caller says otherwise: below the size at which Pillow suspects a decompression bomb."""

_WIDE_GREY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WIDE_TO_BYTE = 257
"""65535 / 255: sixteen-bit grey is scaled, where Pillow's own conversion would clip it."""
_EXIF_DETAILS, _EXIF_TAKEN = 0x8769, 0x9003
"""Tags of EXIF 3.0: the block of details, and DateTimeOriginal in it."""


class ImageError(UserError):
    """An image file that cannot be used; the message names the file and says what to do."""


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
        return _as_rgb(image)


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a photo as people see it, turned by its EXIF orientation; otherwise as `read_image`."""
    with _opened(Path(path), max_pixels) as image:
        return _as_rgb(ImageOps.exif_transpose(image))


def read_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image file as stored, without reading its pixels; otherwise as `read_image`."""
    with _opened(Path(path), max_pixels) as image:
        return image.height, image.width


def read_time_taken(path: str | Path, max_pixels: int = MAX_PIXELS) -> datetime | None:
    """When a photo was taken, local time there, by its EXIF data; None where they do not say it.

    Pixels are not read; otherwise as `read_image`.
    """
    with _opened(Path(path), max_pixels) as image:
        exif = Image.Image.getexif(image)  # PNG's own would read the pixels
        text = str(exif.get_ifd(_EXIF_DETAILS).get(_EXIF_TAKEN, ""))
    with suppress(ValueError):  # "" or "0000:00:00 00:00:00"
        return datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S")
    return None


def jpeg_bytes(pixels: np.ndarray, quality: int, limit: tuple[int, int] | None = None) -> bytes:
    """An image (uint8 H x W x 3, RGB) as JPEG.

    Args:
        quality: 1 to 95, Pillow's.
        limit: most width and height, to which a larger image is scaled down.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if limit is not None:
        picture.thumbnail(limit, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality, optimize=True)
    return file.getvalue()


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """An image file that may be decoded; whatever goes wrong with it, here or in the caller, is an ImageError."""
    try:
        _check(path)
        if Image.MAX_IMAGE_PIXELS is not None:
            # Pillow warns beyond its own limit, and refuses twice as much: a caller's larger one must hold there too.
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
        with Image.open(path, formats=_formats(path)) as image:
            width, height = image.size
            if width * height > max_pixels:
                size = f"{width} x {height}, more than {max_pixels} pixels"
                raise _fault(f"{path} is {size}: scale it down or raise MAX_PIXELS")
            if image.mode == "F":
                raise _fault(f"{path} has floating point pixels of unknown range: save it with 8 bits per channel")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _fault(f"{path} is too large ({error}): scale it down or raise MAX_PIXELS") from error
    except UnidentifiedImageError as error:
        raise _fault(f"{path} is not an image of a known kind: copy it again, or leave it out") from error
    except Exception as error:  # whatever Pillow's readers raise for damaged files, MemoryError included
        reason = str(error) or type(error).__name__
        raise _fault(f"{path} cannot be read as an image ({reason}): copy it again, or leave it out") from error


def _check(path: Path) -> None:
    if not path.exists():
        raise _fault(f"no image file {path}: check the path, and that the dataset is complete")
    if not path.is_file():
        raise _fault(f"{path} is not a file: copy it again, or leave it out")
    if path.stat().st_size == 0:
        raise _fault(f"{path} is an empty file: copy or download it again")


def _formats(path: Path) -> tuple[str, ...]:
    """The kinds of images that a file may hold."""
    if path.suffix.lower() not in HEIF_SUFFIXES:
        return FORMATS
    try:
        import pillow_heif  # optional
    except ImportError:
        raise _fault(f"{path} is in HEIF format: pip install -r requirements-heif.txt, or save it as JPEG") from None
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _fault(message: str) -> ImageError:
    # Not in ImageError itself, which a loader raises again with the lines of its worker's traceback.
    return ImageError(printable(message))


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _WIDE_GREY_MODES:
        grey = np.asarray(image).astype(np.int64) // _WIDE_TO_BYTE
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparent entries must pass through RGBA
    return np.array(image.convert("RGB"))
