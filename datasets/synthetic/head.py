"""Heads: face, hair and hats from any side. All measures in statures."""

import numpy as np

from datasets.synthetic.body import Body

_HEIGHT = 0.92  # centre of the head
_WIDE, _DEEP, _TALL = 0.051, 0.06, 0.07  # half sizes


def paint_long_hair(body: Body) -> None:
    """Hair that falls on the shoulders, to be painted before the trunk where the body faces the camera."""
    x, y, _ = body.seen(0.0, _HEIGHT, -0.012)
    heights = np.array([y - 0.155, y - 0.1, y, y + 0.04])
    widths = body.width(_WIDE, _DEEP) * np.array([1.05, 1.3, 1.16, 0.8])
    body.brush.profile(heights, widths, x, body.look.hair, 0.92)


def paint_head(body: Body) -> None:
    """Face, hair and hat, to be painted after the trunk."""
    centre, width = body.seen(0.0, _HEIGHT, 0.012), float(body.width(_WIDE, _DEEP))
    body.brush.ellipse(centre, width, _TALL, body.look.skin)
    if body.look.hair_kind != "bald":
        _paint_top_hair(body, centre, width)
    if body.facing > -0.55:
        _paint_face(body, centre)
    else:
        body.brush.ellipse(centre - (0, 0.05, 0), width * 0.72, 0.024, body.look.skin, 0.92)
    _paint_back_hair(body)
    if body.look.hat != "none":
        _paint_hat(body, centre + (0, 0.016, 0), width)


def _paint_top_hair(body: Body, centre: np.ndarray, width: float) -> None:
    """The hair on the head: over the top, and down to the nape where the back of the head is seen."""
    brush, look = body.brush, body.look
    if look.hair_kind == "long" or body.facing < -0.55:
        brush.ellipse(centre + (0, 0.006, 0), width * 1.08, _TALL * 1.04, look.hair)
        return
    brush.ellipse(centre + (0, 0.012, 0), width * 1.08, _TALL * 0.98, look.hair, span=(-8, 188))
    if abs(body.forward) > 0.25:
        brush.ellipse(centre + (-0.024 * body.forward, 0.004, 0), width * 0.8, _TALL * 0.92, look.hair)


def _paint_face(body: Body, centre: np.ndarray) -> None:
    brush, look, forward = body.brush, body.look, body.forward
    face = centre[:2] + (0.022 * forward, -0.011)
    brush.ellipse(face, 0.043 - 0.006 * abs(forward), 0.056, look.skin, 1.03)
    if abs(forward) > 0.6:  # nose and ear of a profile
        brush.ellipse(face + (np.sign(forward) * 0.035, -0.002), 0.009, 0.011, look.skin, 1.05)
        brush.ellipse(centre[:2] - (0.012 * np.sign(forward), 0.012), 0.009, 0.014, look.skin, 0.85)
    if not brush.detail:
        return
    facing = max(body.facing, 0.0)
    for side in (-1, 1):
        if facing > 0.2 or side * forward > 0:
            eye = face + (0.019 * side * max(facing, 0.25) + 0.012 * forward, 0.01)
            brush.ellipse(eye, 0.0055, 0.0036, (44, 34, 30))
            brush.ellipse(eye + (0, 0.014), 0.0085, 0.0016, look.hair)
    lips = np.multiply(look.skin, (0.85, 0.6, 0.58))
    brush.ellipse(face + (0.02 * forward, -0.028), 0.005 + 0.008 * facing, 0.0026, lips)


def _paint_back_hair(body: Body) -> None:
    brush, look = body.brush, body.look
    if look.hair_kind == "long" and body.facing <= -0.2:
        paint_long_hair(body)
    elif look.hair_kind == "bun":
        brush.ellipse(body.seen(0.0, _HEIGHT + 0.05, -0.05), 0.026, 0.026, look.hair, 0.9)
    elif look.hair_kind == "ponytail" and body.facing < 0.75:
        root, tip = body.seen(0.0, _HEIGHT + 0.025, -0.06), body.seen(0.0, _HEIGHT - 0.105, -0.088)
        brush.limb(root, tip, (0.021, 0.011), look.hair, 0.88)


def _paint_hat(body: Body, crown: np.ndarray, width: float) -> None:
    brush, look = body.brush, body.look
    if look.hat == "cap" and body.facing > -0.5:
        front = max(body.facing, 0)
        peak = crown[:2] + (0.05 * body.forward, -0.002 - 0.008 * front)
        brush.ellipse(peak, 0.02 + 0.028 * abs(body.forward) + 0.014 * front, 0.012, look.hat_colour, 0.75)
    brush.ellipse(crown, width * 1.14, _TALL * 0.86, look.hat_colour, span=(0, 180))
    if look.hat == "beanie":
        fold = np.multiply(look.hat_colour, 0.8)
        brush.profile([crown[1] - 0.012, crown[1] + 0.012], [width * 1.16, width * 1.15], crown[0], fold)
    elif look.hat == "brim":
        brush.ellipse(crown - (0, 0.002, 0), width * 1.85, 0.016, look.hat_colour, 0.9)
