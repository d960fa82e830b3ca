"""Reading images of every kind, and saying clearly what is wrong with those that cannot be read."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from defaults import get_default_cfg
from utils.images import MAX_PIXELS, ImageError, ImageReader, read_image

RED, GREY = (200, 30, 40), 120


def test_rgb_is_read_as_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(str(tmp_path / "a.png"))
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, pixels)


def converted(mode):
    """A 3 x 2 red or grey image in a mode, and the colour that reading it ought to give."""
    if mode in ("L", "LA", "1"):
        value = {"1": 255}.get(mode, GREY)
        return Image.new("L", (3, 2), value).convert(mode), (value,) * 3
    if mode == "I;16":
        return Image.fromarray(np.full((2, 3), GREY * 257, dtype=np.uint16)), (GREY,) * 3
    if mode == "P":
        return Image.new("RGB", (3, 2), RED).quantize(4), RED
    return Image.new("RGB", (3, 2), RED).convert(mode), RED


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("LA", "png"), ("1", "png"), ("I;16", "png"), ("I;16", "tif"), ("P", "png"), ("P", "gif")]
    + [
        ("RGBA", "png"),
        ("CMYK", "tif"),
        ("RGB", "bmp"),
        ("RGB", "webp"),
        ("RGB", "ppm"),
        ("RGB", "mpo"),
        ("RGB", "jpg"),
    ],
)
def test_every_mode_becomes_rgb(mode, suffix, tmp_path):
    image, colour = converted(mode)
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


def test_orientation_tag_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by a quarter": boxes refer to the pixels as stored
    Image.new("RGB", (30, 20), RED).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_files_that_cannot_be_read_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "bmp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(noise).save(whole)
        (tmp_path / f"truncated.{suffix}").write_bytes(whole.read_bytes()[:1500])
    damaged = bytearray((tmp_path / "whole.png").read_bytes())
    damaged[60:80] = bytes(20)
    (tmp_path / "damaged.png").write_bytes(damaged)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    bad = [
        "truncated.jpg",
        "truncated.png",
        "truncated.bmp",
        "damaged.png",
        "empty.jpg",
        "text.jpg",
        "folder.jpg",
        "none.jpg",
    ]
    for name in bad:
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


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
    with pytest.raises(ImageError, match="20 x 10, more than 199 pixels"):
        read_image(tmp_path / "a.png", max_pixels=199)
    assert read_image(tmp_path / "a.png", max_pixels=200).shape == (10, 20, 3)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 3), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="floating point"):
        read_image(tmp_path / "a.tif")


def test_a_raised_limit_holds_beyond_the_library_s_own(tmp_path, monkeypatch):
    """Pillow warns beyond a limit of its own, and refuses twice as many pixels whatever is asked for."""
    Image.new("1", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="a.png is too large.*raise INPUT.MAX_PIXELS") as caught:
        read_image(tmp_path / "a.png", max_pixels=900)
    assert caught.value.kind == "large"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = ImageReader(max_pixels=3000).inspect(tmp_path / "a.png")
    assert (facts.width, facts.height, facts.mode) == (60, 50, "1")


def test_the_option_has_the_reader_s_limit():
    assert get_default_cfg().INPUT.MAX_PIXELS == MAX_PIXELS
    with pytest.raises(ValueError, match="INPUT.MAX_PIXELS must be 1 or more, not 0"):
        ImageReader(max_pixels=0)


def test_links_may_not_leave_a_folder(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in-out"
    for folder in (inside, outside):
        folder.mkdir()
        Image.new("RGB", (3, 2)).save(folder / "a.png")
    (inside / "b.png").symlink_to("../in-out/a.png")
    (inside / "c.png").symlink_to("a.png")
    read = ImageReader(within=str(inside.resolve()))
    assert read(inside / "a.png").shape == read(inside / "c.png").shape == (2, 3, 3)
    assert ImageReader()(inside / "b.png").shape == (2, 3, 3)
    for path in (inside / "b.png", inside / ".." / "in-out" / "a.png", outside / "a.png"):
        for reading in (read, read.inspect):
            with pytest.raises(ImageError, match="not followed: put the images inside it") as caught:
                reading(path)
            assert caught.value.kind == "linked"


def test_postscript_is_not_handed_to_another_program(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for EPS files, whatever their suffix."""
    ran, ghostscript = tmp_path / "ran", tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "s1.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\nshowpage\n%%EOF\n")
    for reading in (ImageReader(), ImageReader().inspect):
        with pytest.raises(ImageError, match="s1.jpg is not an image of a known kind") as caught:
            reading(path)
        assert caught.value.kind == "other"
    assert not ran.exists()


@pytest.mark.parametrize(
    "damage", [RuntimeError("x"), NotImplementedError("x"), MemoryError(), IndexError("x"), SystemError("x")]
)
def test_whatever_pillow_raises_is_told_of_the_file(damage, tmp_path, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def load(*_):
        raise damage

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    for reading in (ImageReader(), ImageReader().inspect):
        with pytest.raises(ImageError, match=r"a.png cannot be read as an image \((x|MemoryError)\): copy it again"):
            reading(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "a\ud800.jpg", "a\0.jpg"])
def test_names_that_no_file_can_have(name, tmp_path):
    for reader in (ImageReader(), ImageReader(within=os.path.realpath(tmp_path))):
        with pytest.raises(ImageError, match="cannot be read as an image|no image file"):
            reader(tmp_path / name)


def test_folders_are_told_from_missing_files(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ImageError, match="a.jpg is not a file"):
        read_image(tmp_path / "a.jpg")


def test_names_in_messages_do_not_steer_the_terminal(tmp_path):
    with pytest.raises(ImageError, match="jpg") as caught:
        read_image(tmp_path / "\x1b[31mé\n.jpg")
    assert "\\x1b[31mé\\n.jpg" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("bits", [8, 16])
def test_sixteen_bits_are_seen_whatever_the_channels(kind, channels, bits, tmp_path):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 + 3 * channels * bits // 8)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    assert ImageReader().inspect(tmp_path / "a.png").wide == (bits == 16)
