"""Draws one walking person as a sprite, seen from any side, at any size. Measures are in statures."""

import dataclasses

import numpy as np

from datasets.synthetic.bags import paint_bag_behind, paint_bag_in_front
from datasets.synthetic.brush import Brush
from datasets.synthetic.canvas import Canvas, cut_out
from datasets.synthetic.head import paint_hair_behind, paint_head
from datasets.synthetic.pose import skeleton, turn

_WORKING_HEIGHT = 200.0  # pixels: smaller figures are painted at this height and scaled down
_MAX_OVERSAMPLING = 2.5
_DETAIL_HEIGHT = 80.0  # pixels: smaller figures have no eyes
_CANVAS = (1.2, 1.26)  # width, height
_FEET = (0.6, 1.12)  # of the point between the feet, from the canvas's upper left corner
_SKIRT_STRIDE = 0.55  # steps in a long skirt, as a share of others'
_FAR = 0.8  # brightness of the limb on the far side

_TRUNK_HEIGHTS = np.array([0.455, 0.50, 0.60, 0.70, 0.765, 0.800, 0.824, 0.85])
_TRUNK_WIDE = np.array([0.088, 0.090, 0.081, 0.093, 0.104, 0.104, 0.080, 0.036])
_TRUNK_DEEP = np.array([0.062, 0.066, 0.060, 0.069, 0.072, 0.064, 0.052, 0.032])
_HEMS = {"skirt": (0.29, 0.125), "long_skirt": (0.09, 0.125), "dress": (0.27, 0.13)}  # height, half width of the hem
_PADDING = {"tee": 1.0, "jumper": 1.05, "hoodie": 1.12, "jacket": 1.12, "coat": 1.14}


def draw_figure(look, pose, height, light_side, rng):
    """The person's sprite, its feet at (0, 0).

    Args:
        look: a `Look`.
        pose: a `Pose`.
        height: of the person standing, in pixels.
        light_side: -1 (light from the left) to 1 (from the right).
        rng: for the folds of the cloth.
    """
    oversampling = float(np.clip(_WORKING_HEIGHT / height, 1.0, _MAX_OVERSAMPLING))
    unit = height * oversampling
    canvas = Canvas(*(round(side * unit) for side in _CANVAS))
    brush = Brush(canvas, unit, np.multiply(_FEET, unit), light_side, rng, height > _DETAIL_HEIGHT)
    _paint_person(brush, look, pose)
    left, top = (-round(part * height) for part in _FEET)
    return cut_out(canvas, 1 / oversampling, left, top)


def _paint_person(brush, look, pose):
    if look.lower_kind == "long_skirt":
        pose = dataclasses.replace(pose, stride=_SKIRT_STRIDE * pose.stride)
    joints, lift = skeleton(pose, look.build)
    near, far = ("left", "right") if np.sin(pose.heading) < 0 else ("right", "left")
    sideways = abs(np.sin(pose.heading)) > 0.45
    paint_hair_behind(brush, look, pose, lift)
    paint_bag_behind(brush, look, pose, joints, lift)
    if sideways:
        _paint_arm(brush, look, joints, far, _FAR)
    _paint_leg(brush, look, joints, far, _FAR if sideways else 0.93)
    _paint_leg(brush, look, joints, near, 1.0)
    _paint_skirt(brush, look, pose, lift)
    _paint_neck(brush, look, pose, lift)
    _paint_trunk(brush, look, pose, lift)
    if not sideways:
        _paint_arm(brush, look, joints, far, 0.94)
    if np.cos(pose.heading) > -0.3:
        paint_bag_in_front(brush, look, pose, joints, lift)
        _paint_arm(brush, look, joints, near, 1.0)
        paint_head(brush, look, pose, lift)
    else:
        _paint_arm(brush, look, joints, near, 1.0)
        paint_head(brush, look, pose, lift)
        paint_bag_in_front(brush, look, pose, joints, lift)


def _paint_leg(brush, look, joints, side, dim):
    hip, knee, ankle, toe = (joints[f"{joint}_{side}"] for joint in ("hip", "knee", "ankle", "toe"))
    build = 0.5 + 0.5 * look.build
    covered = look.lower_kind in ("trousers", "shorts")
    thigh = look.lower if covered else look.skin
    shin = look.lower if look.lower_kind == "trousers" else look.skin
    heel = ankle + 0.12 * (ankle - toe)
    brush.limb(heel - (0, 0.018, 0), toe, (0.026, 0.019), look.shoes, dim)
    thin = 1.0 if look.lower_kind == "trousers" else 0.8
    brush.limb(knee, ankle, (0.039 * build * thin, 0.029 * thin), shin, dim)
    if look.lower_kind == "shorts":
        brush.limb(hip, knee, (0.056 * build, 0.036 * build), look.skin, dim)
        brush.limb(hip, knee + 0.18 * (hip - knee), (0.06 * build, 0.052 * build), thigh, dim)
    else:
        brush.limb(hip, knee, (0.057 * build, 0.041 * build), thigh, dim)


def _paint_skirt(brush, look, pose, lift):
    if look.lower_kind not in _HEMS:
        return
    hem, flare = _HEMS[look.lower_kind]
    flare = flare * (0.6 + 0.4 * look.build) + 0.16 * pose.stride * abs(np.sin(pose.heading))
    waist = _seen_width(pose, 0.09, 0.066) * look.build
    heights = np.array([hem, 0.5 * (hem + 0.54), 0.54]) + lift
    sway = 0.012 * np.sin(pose.phase)
    brush.profile(heights, [flare, 0.62 * flare + 0.4 * waist, 0.92 * waist], [sway, 0.5 * sway, 0.0], look.lower)


def _seen_width(pose, wide, deep):
    return np.hypot(wide * np.cos(pose.heading), deep * np.sin(pose.heading))


def _paint_neck(brush, look, pose, lift):
    base, top = turn((0, 0.82 + lift, 0), pose.heading), turn((0, 0.9 + lift, 0.01), pose.heading)
    brush.limb(base, top, (0.032, 0.027), look.skin, 0.88)


def _paint_trunk(brush, look, pose, lift):
    padding = _PADDING[look.upper_kind] * look.build
    widths = _seen_width(pose, _TRUNK_WIDE, _TRUNK_DEEP) * padding
    heights = _TRUNK_HEIGHTS + lift
    lean = 0.035 * np.sin(pose.heading) * (heights - 0.5)
    if look.upper_kind == "coat":
        tail = np.array([0.30, 0.40]) + lift
        flare = _seen_width(pose, 0.106, 0.084) * padding + 0.03 * pose.stride
        heights = np.concatenate([tail, heights])
        widths = np.concatenate([[flare, flare * 0.97], widths])
        lean = np.concatenate([[0.0, 0.0], lean])
    elif look.upper_kind != "tee" and look.lower_kind != "dress":
        heights[0] -= 0.02
    brush.profile(heights, widths, lean, look.upper)
    _paint_trunk_details(brush, look, pose, lift, widths[-6])
    if look.scarf:
        brush.profile(np.array([0.805, 0.83, 0.862]) + lift, [0.045, 0.055, 0.042], 0.0, look.bag_colour, 0.95)


def _paint_trunk_details(brush, look, pose, lift, half_width):
    facing, forward = np.cos(pose.heading), np.sin(pose.heading)
    if facing < -0.2:
        if look.upper_kind == "hoodie":
            brush.ellipse((0, 0.812 + lift), 0.06, 0.035, look.upper, 0.85)
        return
    centre = 0.6 * half_width * forward
    if look.upper_kind in ("tee", "jumper"):
        brush.ellipse((0.7 * centre, 0.846 + lift), 0.014 + 0.016 * max(facing, 0.0), 0.015, look.skin, 0.9)
    if look.upper_kind == "jacket":
        low, high = 0.45 + lift, 0.835 + lift
        gap = 0.034 * facing + 0.008
        opening = [
            (centre - gap, low),
            (centre + gap, low),
            (centre * 0.6 + 0.6 * gap, high),
            (centre * 0.6 - 0.6 * gap, high),
        ]
        brush.flat(opening, np.multiply(look.inner, 0.95))
    elif look.upper_kind == "coat":
        seam = tuple(np.multiply(look.upper.colour, 0.62))
        brush.flat([(centre - 0.004, 0.31 + lift), (centre + 0.004, 0.31 + lift), (centre, 0.82 + lift)], seam)
        for height in (0.55, 0.63, 0.71):
            brush.ellipse((centre + 0.014 * facing, height + lift), 0.006, 0.006, look.inner)
    if look.logo and facing > 0.25:
        brush.ellipse((centre * 0.8, 0.715 + lift), 0.046 * facing + 0.008, 0.036, look.inner)


def _paint_arm(brush, look, joints, side, dim):
    shoulder, elbow, hand = (joints[f"{joint}_{side}"] for joint in ("shoulder", "elbow", "hand"))
    thick = _PADDING[look.upper_kind] * (0.55 + 0.45 * look.build)
    bare = look.upper_kind == "tee"
    brush.ellipse(hand + 0.15 * (hand - elbow), 0.019, 0.025, look.skin, dim)
    brush.limb(
        elbow,
        hand,
        (0.026, 0.019) if bare else (0.029 * thick, 0.024 * thick),
        look.skin if bare else look.sleeves,
        dim,
    )
    if bare:
        brush.limb(shoulder, elbow, (0.032, 0.026), look.skin, dim)
        brush.limb(shoulder, 0.45 * shoulder + 0.55 * elbow, (0.034 * thick, 0.036 * thick), look.sleeves, 0.95 * dim)
    else:
        brush.limb(shoulder, elbow, (0.033 * thick, 0.029 * thick), look.sleeves, 0.95 * dim)
