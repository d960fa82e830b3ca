"""Boxes, labels and query marks on pictures. Pure functions: RGB uint8 H x W x 3 in, a new picture out.

Boxes are x1, y1, x2, y2 in pixels of the picture given. Small pictures are enlarged, so that text stays readable:
results have at least MIN_LONG_SIDE pixels on their longer side. Colours are from the palette of Okabe and Ito
(https://jfly.uni-koeln.de/color), which people with any kind of colour blindness can distinguish; the best match also
has a thicker line and a word, so nothing hangs on colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box: TypeAlias = Sequence[float]
Color: TypeAlias = tuple[int, int, int]

FOUND = (86, 180, 233)
BEST = (213, 94, 0)
RIGHT = (0, 158, 115)
QUERY = (240, 228, 66)
CASING = (20, 20, 20)
FAINT = (110, 110, 110)

MIN_LONG_SIDE = 640
MIN_TEXT = 12  # smallest height of text, in pixels
TEXT_FRACTION = 44  # the picture's longer side, divided by the height of text
LINE_FRACTION = 400  # likewise, by the usual width of a line
OTHER_COVER_COST = 5  # how much worse it is to cover another person than as many pixels of the label's own
LABEL_COVER_COST = 10  # likewise, to cover another label


@dataclass(frozen=True)
class Mark:
    """A box to draw: label at its edge ("" for none), colour, line width as a multiple of the usual."""

    box: Box
    label: str = ""
    color: Color = FOUND
    weight: float = 1.0


def draw_detections(
    image: np.ndarray, boxes: Sequence[Box], similarities: Sequence[float], match: int | None = None
) -> np.ndarray:
    """People found (n x 4), with their similarities to the query (n); `match`: the matching one's row."""
    rows = [(box, f"{similarity:.3f}") for box, similarity in zip(boxes, similarities, strict=True)]
    marks = [Mark(box, label) for row, (box, label) in enumerate(rows) if row != match]
    if match is not None:
        box, label = rows[match]
        marks.append(Mark(box, f"match {label}", BEST, weight=2.0))
    return draw_marks(image, marks)


def draw_numbered(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """People found (n x 4), numbered from 1 in the order given."""
    return draw_marks(image, [Mark(box, str(number), QUERY, weight=2.0) for number, box in enumerate(boxes, start=1)])


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Draw marks, later ones over earlier ones; labels keep clear of one another where there is room."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = max(1.0, MIN_LONG_SIDE / max(picture.size))
    if scale > 1:
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    long_side = max(picture.size)
    text_font = font(max(MIN_TEXT, long_side / TEXT_FRACTION))
    boxes = [tuple(float(v) * scale for v in mark.box) for mark in marks]
    for box, mark in zip(boxes, marks, strict=True):
        _outline(draw, box, mark.color, max(2, round(mark.weight * long_side / LINE_FRACTION)))
    placed = []
    # Labels after all lines and the last mark's first: the most important one has the first choice of place.
    for box, mark in reversed(list(zip(boxes, marks, strict=True))):
        if mark.label:
            place = _label_place(box, mark.label, text_font, picture.size, boxes, placed)
            draw.rectangle(place, fill=mark.color)
            middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
            ink = (255, 255, 255) if mark.color == BEST else (0, 0, 0)
            draw.text(middle, mark.label, fill=ink, font=text_font, anchor="mm")
            placed.append(place)
    return np.asarray(picture)


def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font, so that no font file has to be found; `size` in pixels."""
    return ImageFont.load_default(size=round(size))


def _outline(draw: ImageDraw.ImageDraw, box: Box, color: Color, width: int) -> None:
    """A rectangle whose line, with a thin dark casing, lies outside the box and so hides nothing of the person."""
    casing = max(1, width // 3)
    whole = width + 2 * casing
    for grow, line, ink in ((whole, whole, CASING), (whole - casing, width, color)):
        x1, y1, x2, y2 = box
        # Pillow counts the last pixel in, boxes do not.
        draw.rectangle((x1 - grow, y1 - grow, max(x1, x2) + grow - 1, max(y1, y2) + grow - 1), outline=ink, width=line)


def _label_place(
    box: Box, label: str, text_font: ImageFont.FreeTypeFont, size: tuple[int, int], boxes: list[Box], placed: list[Box]
) -> Box:
    """The rectangle for a label: at an edge of its box, where it is least likely to be taken for another's.

    It touches its own box (`box`, one of `boxes`), and covers as little as possible of other people and labels.
    """
    pad = max(2, round(text_font.size / 6))
    width = text_font.getlength(label) + 2 * pad
    height = text_font.size + 2 * pad
    x1, y1, x2, y2 = box
    options = [
        _inside((left, top, width, height), size)
        for top in (y1 - height, y1, y2 - height, y2)
        for left in (x1, x2 - width)
    ]

    def cost(place: Box) -> float:
        covered = sum(_overlap(place, other) * (1 if other is box else OTHER_COVER_COST) for other in boxes)
        return covered + LABEL_COVER_COST * sum(_overlap(place, other) for other in placed)

    return min(options, key=cost)


def _inside(rectangle: Box, size: tuple[int, int]) -> Box:
    """x, y, w, h moved into a picture of `size`, as corners."""
    x, y, width, height = rectangle
    x, y = max(0, min(x, size[0] - width - 1)), max(0, min(y, size[1] - height - 1))
    return x, y, x + width, y + height


def _overlap(one: Box, other: Box) -> float:
    """Area that two rectangles share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)
