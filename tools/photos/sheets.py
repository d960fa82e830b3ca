"""A sheet of several pictures: a query with its ranked matches."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tools.photos.drawing import BEST, FAINT, QUERY, Box, Color, Mark, draw_marks, font
from tools.photos.wording import drawable

PAPER, INK = (255, 255, 255), (30, 30, 30)
GAP, INNER_GAP = 16, 6
SCENE = (330, 220)  # width, height in pixels, as all sizes here
CROP = (100, 220)
CAPTION = 26
TITLE = 34
QUERY_CROP = (230, 506)
CROP_MARGIN = 0.15  # of the box's sides, shown around it


@dataclass(frozen=True)
class Match:
    """A gallery image with its most similar person.

    Attributes:
        image: uint8 H x W x 3, RGB.
        box: of the person, x1, y1, x2, y2 in pixels of the image.
        similarity: to the query.
        name: of the file.
        word: beside the similarity, such as "no match"; "" for none.
        color: of its frames, and of the word.
    """

    image: np.ndarray
    box: Box
    similarity: float
    name: str
    word: str = ""
    color: Color = BEST


def overview(
    query_image: np.ndarray, query_box: Box, matches: Sequence[Match], query_name: str = "", title: str = ""
) -> np.ndarray:
    """One picture: the query on the left, its matches in falling order on the right, under a title.

    A match shows the person enlarged beside the whole scene, where it is outlined, over rank, similarity, word and file
    name.

    Args:
        query_image: uint8 H x W x 3 RGB. query_box: x1, y1, x2, y2. matches: Match objects, the best first.

    Returns:
        uint8 H x W x 3 RGB, sized by the number of matches.
    """
    # Three rows stand as high as the query's column.
    columns = max(1, ceil(len(matches) / max(3, ceil(sqrt(len(matches))))))
    rows = ceil(len(matches) / columns)
    cell = CROP[0] + INNER_GAP + SCENE[0], SCENE[1] + CAPTION
    left = SCENE[0] + 2 * GAP
    right_height = rows * (cell[1] + GAP)
    query_height = SCENE[1] + CAPTION + GAP + QUERY_CROP[1]
    size = left + GAP + columns * (cell[0] + GAP), TITLE + GAP + max(right_height, query_height + GAP)
    sheet = Image.new("RGB", size, PAPER)
    ImageDraw.Draw(sheet).rectangle((0, 0, left - 1, size[1]), fill=(243, 243, 243))
    _draw_query(sheet, query_image, query_box, query_name)
    _write(sheet, (left + GAP, TITLE / 2 + GAP / 2), title, 20)
    for rank, match in enumerate(matches, start=1):
        row, column = divmod(rank - 1, columns)
        corner = left + GAP + column * (cell[0] + GAP), TITLE + GAP + row * (cell[1] + GAP)
        _draw_match(sheet, corner, rank, match)
    return np.asarray(sheet)


def crop_region(image: np.ndarray, box: Box, shape: tuple[int, int]) -> np.ndarray:
    """The region of `box` and a margin around it, in the proportions of `shape` (width, height), cut to the image."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in box)
    wide, high = (x2 - x1) * (1 + 2 * CROP_MARGIN), (y2 - y1) * (1 + 2 * CROP_MARGIN)
    high = max(high, wide * shape[1] / shape[0])
    wide = max(wide, high * shape[0] / shape[1])
    left, right = np.clip([(x1 + x2 - wide) / 2, (x1 + x2 + wide) / 2], 0, width).astype(int)
    top, bottom = np.clip([(y1 + y2 - high) / 2, (y1 + y2 + high) / 2], 0, height).astype(int)
    left, top = min(left, width - 1), min(top, height - 1)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def _draw_query(sheet: Image.Image, image: np.ndarray, box: Box, name: str) -> None:
    _write(sheet, (GAP, TITLE / 2 + GAP / 2), "Query", 20)
    top = TITLE + GAP
    _paste(sheet, draw_marks(image, [Mark(box, "", QUERY, weight=2.5)]), (GAP, top), SCENE)
    _write(sheet, (GAP, top + SCENE[1] + CAPTION / 2), shorten(drawable(name), font(15), SCENE[0]), 15, FAINT)
    _paste(sheet, crop_region(image, box, QUERY_CROP), (GAP, top + SCENE[1] + CAPTION + GAP), QUERY_CROP, QUERY)


def _draw_match(sheet: Image.Image, corner: tuple[int, int], rank: int, match: Match) -> None:
    x, y = corner
    scene_x, middle = x + CROP[0] + INNER_GAP, y + SCENE[1] + CAPTION / 2
    _paste(sheet, crop_region(match.image, match.box, CROP), corner, CROP, match.color)
    _paste(sheet, draw_marks(match.image, [Mark(match.box, "", match.color, weight=2.5)]), (scene_x, y), SCENE)
    _write(sheet, (x, middle), f"{rank}", 20)
    color, told = match.color if match.word else INK, f"{match.similarity:.3f} {match.word}".strip()
    told_x = x + max(28, font(20).getlength(f"{rank}") + INNER_GAP)
    _write(sheet, (told_x, middle), told, 18, color)
    name_x = max(scene_x, told_x + font(18).getlength(told) + 2 * INNER_GAP)
    _write(sheet, (name_x, middle), shorten(drawable(match.name), font(15), scene_x + SCENE[0] - name_x), 15, FAINT)


def _write(sheet: Image.Image, place: tuple[float, float], text: str, size: int, color: Color = INK) -> None:
    """Text from `place` to the right, centred vertically on it."""
    ImageDraw.Draw(sheet).text(place, text, fill=color, font=font(size), anchor="lm")


def shorten(text: str, text_font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, its middle replaced by dots where wider than `width` pixels: the ends of a file name matter most."""
    keep = len(text)
    short = text
    while keep > 1 and text_font.getlength(short) > width:
        keep -= 1
        short = f"{text[: keep // 2]}...{text[-((keep + 1) // 2) :]}"
    return short


def _paste(
    sheet: Image.Image, image: np.ndarray, corner: tuple[int, int], size: tuple[int, int], frame: Color | None = None
) -> None:
    """Fit `image` into the rectangle at `corner`, left and in the middle; `frame`: the colour of a line around it."""
    picture = ImageOps.contain(Image.fromarray(np.ascontiguousarray(image)), size, Image.Resampling.LANCZOS)
    x, y = corner[0], corner[1] + (size[1] - picture.height) // 2
    sheet.paste(picture, (x, y))
    if frame:
        outer = (x, y, x + picture.width - 1, y + picture.height - 1)
        ImageDraw.Draw(sheet).rectangle(outer, outline=frame, width=4)
