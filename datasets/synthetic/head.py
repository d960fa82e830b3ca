"""Heads: face, hair and hats from any side. All measures in statures."""

import numpy as np

from datasets.synthetic.pose import turn

_HEIGHT = 0.92  # centre of the head
_WIDE, _DEEP, _TALL = 0.051, 0.06, 0.07  # half sizes


def _width(heading, wide=_WIDE, deep=_DEEP):
    return float(np.hypot(wide * np.cos(heading), deep * np.sin(heading)))


def head_centre(pose, lift):
    """The seen centre (x, y, depth)."""
    return turn((0.0, _HEIGHT + lift, 0.012), pose.heading)


def paint_hair_behind(brush, look, pose, lift):
    """Long hair that falls behind the shoulders, to be painted before the trunk."""
    if look.hair_kind == "long" and np.cos(pose.heading) > -0.2:
        _fall(brush, look, pose, lift)


def _fall(brush, look, pose, lift):
    x, y, _ = turn((0.0, _HEIGHT + lift, -0.012), pose.heading)
    width = _width(pose.heading)
    heights = np.array([y - 0.155, y - 0.1, y, y + 0.04])
    brush.profile(heights, width * np.array([1.05, 1.3, 1.16, 0.8]), x, look.hair, 0.92)


def paint_head(brush, look, pose, lift):
    """Face, hair and hat, to be painted after the trunk."""
    centre, heading = head_centre(pose, lift), pose.heading
    width = _width(heading)
    brush.ellipse(centre, width, _TALL, look.skin)
    if look.hair_kind != "bald":
        _paint_cap(brush, look, centre, heading, width)
    if np.cos(heading) > -0.55:
        _paint_face(brush, look, centre, heading)
    else:
        brush.ellipse(centre - (0, 0.05, 0), width * 0.72, 0.024, look.skin, 0.92)
    _paint_back_hair(brush, look, pose, lift)
    _paint_hat(brush, look, centre, heading, width)


def _paint_cap(brush, look, centre, heading, width):
    """The hair on the head: over the top, and down to the nape where the back of the head is seen."""
    forward, facing = np.sin(heading), np.cos(heading)
    if look.hair_kind == "long" or facing < -0.55:
        brush.ellipse(centre + (0, 0.006, 0), width * 1.08, _TALL * 1.04, look.hair)
        return
    brush.ellipse(centre + (0, 0.012, 0), width * 1.08, _TALL * 0.98, look.hair, span=(-8, 188))
    if abs(forward) > 0.25:
        nape = centre + (-0.024 * forward, 0.004, 0)
        brush.ellipse(nape, width * 0.8, _TALL * 0.92, look.hair)


def _paint_face(brush, look, centre, heading):
    forward, facing = np.sin(heading), max(np.cos(heading), 0.0)
    face = centre[:2] + (0.022 * forward, -0.011)
    width = 0.043 - 0.006 * abs(forward)
    brush.ellipse(face, width, 0.056, look.skin, 1.03)
    if abs(forward) > 0.6:
        brush.ellipse(face + (np.sign(forward) * 0.035, -0.002), 0.009, 0.011, look.skin, 1.05)
        brush.ellipse(centre[:2] - (0.012 * np.sign(forward), 0.012), 0.009, 0.014, look.skin, 0.85)
    if brush.detail:
        _paint_features(brush, look, face, forward, facing)


def _paint_features(brush, look, face, forward, facing):
    for side in (-1, 1):
        eye = face + (0.019 * side * max(facing, 0.25) + 0.012 * forward, 0.01)
        if facing > 0.2 or side * forward > 0:
            brush.ellipse(eye, 0.0055, 0.0036, (44, 34, 30))
            brush.ellipse(eye + (0, 0.014), 0.0085, 0.0016, look.hair)
    mouth = face + (0.02 * forward, -0.028)
    brush.ellipse(mouth, 0.005 + 0.008 * facing, 0.0026, tuple(np.multiply(look.skin, (0.85, 0.6, 0.58))))


def _paint_back_hair(brush, look, pose, lift):
    away = np.cos(pose.heading) <= -0.2
    if look.hair_kind == "long" and away:
        _fall(brush, look, pose, lift)
    elif look.hair_kind == "bun":
        knot = turn((0.0, _HEIGHT + lift + 0.05, -0.05), pose.heading)
        brush.ellipse(knot, 0.026, 0.026, look.hair, 0.9)
    elif look.hair_kind == "ponytail" and np.cos(pose.heading) < 0.75:
        root = turn((0.0, _HEIGHT + lift + 0.025, -0.06), pose.heading)
        tip = turn((0.0, _HEIGHT + lift - 0.105, -0.088), pose.heading)
        brush.limb(root, tip, (0.021, 0.011), look.hair, 0.88)


def _paint_hat(brush, look, centre, heading, width):
    if look.hat == "none":
        return
    forward, facing = np.sin(heading), np.cos(heading)
    crown = centre + (0, 0.016, 0)
    if look.hat == "cap":
        peak = crown[:2] + (0.05 * forward, -0.002 - 0.008 * max(facing, 0))
        reach = 0.02 + 0.028 * abs(forward) + 0.014 * max(facing, 0)
        if facing > -0.5:
            brush.ellipse(peak, reach, 0.012, look.hat_colour, 0.75)
    brush.ellipse(crown, width * 1.14, _TALL * 0.86, look.hat_colour, span=(0, 180))
    if look.hat == "beanie":
        fold = tuple(np.multiply(look.hat_colour, 0.8))
        brush.profile([crown[1] - 0.012, crown[1] + 0.012], [width * 1.16, width * 1.15], crown[0], fold)
    elif look.hat == "brim":
        brush.ellipse(crown - (0, 0.002, 0), width * 1.85, 0.016, look.hat_colour, 0.9)
