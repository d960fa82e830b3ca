"""Reading images of every kind, and saying clearly what is wrong with those that cannot be read."""

import os
import pickle
import struct
import warnings
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from trees import cut_off

from defaults import get_default_cfg
from utils.images import MAX_PIXELS, ImageError, read_image

RED, GREY, WHITE = (200, 30, 40), (120,) * 3, (255,) * 3


def test_rgb_is_read_as_stored_and_the_tag_of_orientation_is_not_applied(tmp_path):
    """Boxes refer to the pixels as stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by a quarter"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = read_image(str(tmp_path / "a.png"))
    assert read.dtype == np.uint8 and read.flags.writeable
    np.testing.assert_array_equal(read, pixels)


KINDS = [(WHITE, "1", "png"), (GREY, "L", "png"), (GREY, "LA", "png"), (GREY, "I;16", "png"), (GREY, "I;16", "tif")]
KINDS += [(RED, "P", "png"), (RED, "P", "gif"), (RED, "RGBA", "png"), (RED, "CMYK", "tif")]
KINDS += [(RED, "RGB", suffix) for suffix in ("bmp", "webp", "ppm", "mpo", "jpg")]


@pytest.mark.parametrize(("colour", "mode", "suffix"), KINDS)
def test_every_mode_becomes_rgb(colour, mode, suffix, tmp_path):
    image = Image.new("RGB", (3, 2), colour)
    if mode == "I;16":
        image = Image.fromarray(np.full((2, 3), colour[0] * 257, dtype=np.uint16))
    elif mode != "RGB":
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    read = read_image(tmp_path / f"a.{suffix}")
    assert read.shape == (2, 3, 3)
    assert np.abs(read.astype(int) - colour).max() <= 2


def test_transparent_palette_keeps_its_colours_without_a_warning(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, 0, 0, 0, 255, 255, 255])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").tolist() == [[list(RED), [0] * 3, [255] * 3]]


def test_files_that_cannot_be_read_are_named(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for suffix in ("jpg", "png", "bmp"):
        noise.save(tmp_path / f"truncated.{suffix}")
        cut_off(tmp_path / f"truncated.{suffix}")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.ones((2, 3), dtype=np.float32)).save(tmp_path / "float.tif")
    for name, shown, reason in (
        *(
            (f"truncated.{suffix}", "", r"cannot be read as an image \(.*\): copy it again")
            for suffix in ("jpg", "png", "bmp")
        ),
        ("empty.jpg", "", "is an empty file"),
        ("text.jpg", "", "is not an image of a known kind"),
        ("folder.jpg", "", "is not a file"),
        ("none.jpg", "", "no image file"),
        ("float.tif", "", "floating point pixels"),
        ("a\0.jpg", "a\\x00.jpg", None),
        ("a\ud800.jpg", "jpg", None),
        ("\x1b[31mé\n.jpg", "\\x1b[31mé\\n.jpg", None),
    ):
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert (shown or name) in str(caught.value) and str(caught.value).isprintable()
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - as a loader process sends it
    assert type(again) is ImageError and str(again) == str(caught.value)


def test_enormous_images_are_refused_before_they_are_decoded(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"IHDR")
    (tmp_path / "huge.png").write_bytes(
        content[:start] + header + struct.pack(">I", zlib.crc32(header)) + content[start + len(header) + 4 :]
    )
    with pytest.raises(ImageError, match="huge.png is too large"):
        read_image(tmp_path / "huge.png")
    with pytest.raises(ImageError, match="20 x 10, more than 199 pixels: scale it down or raise MAX_PIXELS"):
        read_image(tmp_path / "a.png", max_pixels=199)
    assert read_image(tmp_path / "a.png", max_pixels=200).shape == (10, 20, 3)
    assert get_default_cfg().INPUT.MAX_PIXELS == MAX_PIXELS


def test_a_raised_limit_holds_beyond_the_library_s_own(tmp_path, monkeypatch):
    """Pillow warns beyond a limit of its own, and refuses twice as many pixels whatever is asked for."""
    Image.new("1", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png", max_pixels=3000).shape == (50, 60, 3)


def test_postscript_is_not_handed_to_another_program(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for EPS files, whatever their suffix."""
    ran, ghostscript = tmp_path / "ran", tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "s1.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError, match="s1.jpg is not an image of a known kind"):
        read_image(path)
    assert not ran.exists()


@pytest.mark.parametrize("damage", [MemoryError(), SystemError("x")])
def test_whatever_pillow_raises_names_the_file(damage, tmp_path, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", Mock(side_effect=damage))
    with pytest.raises(ImageError, match=r"a.png cannot be read as an image \((x|MemoryError)\): copy it again"):
        read_image(tmp_path / "a.png")
