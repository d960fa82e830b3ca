"""Bags: backpacks, shoulder bags, handbags and suitcases, behind or in front of the body as the view demands."""

import numpy as np

from datasets.synthetic.body import Body


def paint_bag_behind(body: Body) -> None:
    """The bag, if the body is in front of it."""
    if _is_behind(body):
        _PAINTERS[body.look.bag](body)


def paint_bag_in_front(body: Body) -> None:
    """The bag, if it is in front of the body, and the straps of one that is behind."""
    if body.look.bag == "backpack" and body.facing > 0.1:
        _paint_backpack_straps(body)
    if body.look.bag == "shoulder":
        strap = np.multiply(body.look.bag_colour, 0.8)
        body.brush.limb(body.seen(-0.065, 0.835, 0.0), body.seen(0.115, 0.53, 0.0), (0.008, 0.008), strap)
    if body.look.bag != "none" and not _is_behind(body):
        _PAINTERS[body.look.bag](body)


def _is_behind(body: Body) -> bool:
    behind = {
        "none": False,
        "backpack": body.facing > -0.15,
        "suitcase": body.facing > 0,
        "handbag": body.joints["hand_left"][2] < -0.06,
        "shoulder": body.seen(0.12, 0.5, 0.0)[2] < -0.06,
    }
    return behind[body.look.bag]


def _paint_backpack_straps(body: Body) -> None:
    low, high = 0.62 + body.lift, 0.835 + body.lift
    for side in (-1, 1):
        x = 0.062 * side * body.facing + 0.03 * body.forward
        strap = [(x - 0.011, low), (x + 0.011, low), (x * 0.85 + 0.011, high), (x * 0.85 - 0.011, high)]
        body.brush.flat(strap, np.multiply(body.look.bag_colour, 0.85))


def _paint_backpack(body: Body) -> None:
    brush, colour = body.brush, body.look.bag_colour
    x, y, _ = body.seen(0.0, 0.69, -0.1)
    width = body.width(0.088, 0.056)
    brush.profile(np.array([-0.12, -0.1, 0.07, 0.115, 0.13]) + y, width * np.array([0.85, 1, 1, 0.85, 0.5]), x, colour)
    if body.facing < 0:  # the pocket
        brush.profile(np.array([-0.1, -0.02]) + y, [width * 0.7, width * 0.7], x, np.multiply(colour, 0.78))


def _paint_shoulder_bag(body: Body) -> None:
    x, y, _ = body.seen(0.125, 0.48, 0.0)
    widths = body.width(0.03, 0.075) * np.array([0.9, 1, 0.95])
    body.brush.profile(np.array([-0.06, -0.05, 0.05]) + y, widths, x, body.look.bag_colour)


def _paint_handbag(body: Body) -> None:
    brush, colour = body.brush, body.look.bag_colour
    x, y, _ = body.joints["hand_left"]
    width = body.width(0.035, 0.07)
    handle = [(x - 0.7 * width, y - 0.08), (x - 0.03, y), (x + 0.03, y), (x + 0.7 * width, y - 0.08)]
    brush.flat(handle, np.multiply(colour, 0.6), 0.8)
    brush.profile(np.array([-0.17, -0.155, -0.075]) + y, width * np.array([0.95, 1, 0.85]), x, colour)


def _paint_suitcase(body: Body) -> None:
    brush, colour = body.brush, body.look.bag_colour
    x, y, _ = body.seen(0.15, 0.03, -0.2)
    width = body.width(0.085, 0.05)
    brush.limb((x, y + 0.28), body.joints["hand_left"], (0.006, 0.006), (70, 70, 74))
    brush.profile(np.array([0.0, 0.015, 0.27, 0.285]) + y, width * np.array([0.93, 1, 1, 0.9]), x, colour)
    for rib in (x - 0.4 * width, x + 0.4 * width):
        brush.rectangle(rib - 0.004, y + 0.02, rib + 0.004, y + 0.26, np.multiply(colour, 0.7))


_PAINTERS = {"backpack": _paint_backpack, "shoulder": _paint_shoulder_bag, "handbag": _paint_handbag,
             "suitcase": _paint_suitcase}  # fmt: skip
