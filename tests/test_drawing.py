"""Drawing: where lines, labels and pictures come to lie."""

import numpy as np
import pytest

from tools.photos.drawing import BEST, CASING, FOUND, MIN_LONG_SIDE, QUERY, Mark, draw_detections, draw_marks, font
from tools.photos.sheets import CROP, Match, crop_region, overview, shorten

GREY = np.full((480, 640, 3), 128, dtype=np.uint8)


def where(picture, color):
    """x1, y1, x2, y2 of the pixels that have exactly this colour; None for none."""
    rows, columns = np.nonzero((picture == np.array(color)).all(axis=2))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else None


def test_a_line_lies_just_outside_its_box():
    box = (200, 150, 260, 300)
    picture = draw_marks(GREY, [Mark(box)])
    assert (picture[150:300, 200:260] == 128).all()
    assert where(picture, FOUND) == (197, 147, 263, 303)  # a line of 2 pixels, and one of casing on either side
    assert where(picture, CASING) == (196, 146, 264, 304)
    assert (GREY == 128).all()


def test_a_match_stands_out_by_colour_and_width():
    boxes = [(50, 200, 90, 300), (300, 200, 340, 300)]
    picture = draw_detections(GREY, boxes, [0.9, 0.4], match=1)
    left, right = picture[:, :200], picture[:, 200:]
    assert not where(left, BEST) and not where(right, FOUND)
    assert (right == BEST).all(axis=2).sum() > 1.5 * (left == FOUND).all(axis=2).sum()
    assert where(draw_detections(GREY, boxes, [0.9, 0.4]), BEST) is None
    assert np.array_equal(draw_detections(GREY, np.zeros((0, 4)), []), GREY), "nobody was found"


def test_small_pictures_are_enlarged_with_their_boxes():
    picture = draw_marks(GREY[:48, :64], [Mark((20, 10, 30, 40), "", QUERY)])
    assert picture.shape == (480, MIN_LONG_SIDE, 3)
    assert np.abs(np.array(where(picture, QUERY)) - (200, 100, 300, 400)).max() <= 4


def test_labels_do_not_cover_one_another():
    """Of two people side by side both labels are seen: each adds as many pixels as it does alone."""

    def changed(*texts):
        boxes = [(300, 200, 330, 300), (310, 205, 340, 305)]
        marks = [Mark(box, text, color) for box, text, color in zip(boxes, texts, (FOUND, QUERY), strict=True)]
        return np.count_nonzero(draw_marks(GREY, marks) != GREY)

    none, first, second, both = changed("", ""), changed("0.88", ""), changed("", "0.88"), changed("0.88", "0.88")
    assert min(first, second) > none and both - none > 0.97 * (first + second - 2 * none)


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (630, 470, 640, 480), (-20, -30, 5, 9), (100, 100, 100, 100)])
def test_boxes_at_the_edge_and_without_area_are_drawn(box):
    picture = draw_detections(GREY, [box], [0.5], match=0)
    assert picture.shape == GREY.shape
    assert where(picture, BEST)


def test_crops_have_the_shape_asked_for_and_hold_the_box():
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    image[200:300, 300:340] = 255
    crop = crop_region(image, (300, 200, 340, 300), CROP)
    assert crop.shape[1] / crop.shape[0] == pytest.approx(CROP[0] / CROP[1], rel=0.05)
    assert np.count_nonzero(crop[:, :, 0]) == 40 * 100
    wide = crop_region(image, (250, 240, 400, 260), CROP)
    assert wide.shape[0] > wide.shape[1]
    for outside in ((700, 500, 720, 560), (-50, -50, -10, -10)):
        assert crop_region(image, outside, CROP).size > 0


def test_overview_has_the_query_left_and_a_cell_for_each_match():
    red, blue = np.full_like(GREY, (200, 0, 0)), np.full_like(GREY, (0, 0, 200))
    match = Match(blue, (300, 200, 340, 300), 0.87, "s1.jpg")
    areas = []
    for number in (0, 1, 3, 4):
        sheet = overview(red, (100, 100, 140, 200), [match] * number, "q.jpg")
        blues = np.nonzero((sheet == (0, 0, 200)).all(axis=2))[1]
        reds = np.nonzero((sheet == (200, 0, 0)).all(axis=2))[1]
        assert reds.size
        assert number == 0 or reds.max() < blues.min()
        areas.append(blues.size)
    assert areas == [0, areas[1], 3 * areas[1], 4 * areas[1]] and areas[1]


def test_long_names_are_shortened_in_the_middle():
    text = "camera_1_street_" * 5 + "000123.jpg"
    short = shorten(text, font(15), 300)
    assert font(15).getlength(short) <= 300
    assert short.startswith("camera_1") and short.endswith("123.jpg")
    assert shorten("s1.jpg", font(15), 300) == "s1.jpg"
