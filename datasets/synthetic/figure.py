"""Draws one walking person as a sprite, seen from any side, at any size. Measures are in statures."""

import dataclasses

import numpy as np
from numpy.random import Generator

from datasets.synthetic.body import Body, Pose
from datasets.synthetic.canvas import Brush, Canvas, Colour, Sprite, cut_out
from datasets.synthetic.wardrobe import Look

_WORKING_HEIGHT = 200.0  # pixels: smaller figures are painted at this height and scaled down
_MAX_OVERSAMPLING = 2.5
_CANVAS = (1.2, 1.26)  # width, height
_FEET = (0.6, 1.12)  # of the point between the feet, from the canvas's upper left corner
_SKIRT_STRIDE = 0.55  # steps in a long skirt, as a share of others'
_FAR = 0.8  # brightness of the limb on the far side

_TRUNK_HEIGHTS = np.array([0.455, 0.50, 0.60, 0.70, 0.765, 0.800, 0.824, 0.85])
_TRUNK_WIDE = np.array([0.088, 0.090, 0.081, 0.093, 0.104, 0.104, 0.080, 0.036])
_TRUNK_DEEP = np.array([0.062, 0.066, 0.060, 0.069, 0.072, 0.064, 0.052, 0.032])
_HEAD_HEIGHT = 0.92  # centre of the head
_HEAD_WIDE, _HEAD_DEEP, _HEAD_TALL = 0.051, 0.06, 0.07  # half sizes
_HEMS = {"skirt": (0.29, 0.125), "long_skirt": (0.09, 0.125), "dress": (0.27, 0.13)}  # height, half width of the hem
_PADDING = {"tee": 1.0, "jumper": 1.05, "hoodie": 1.12, "jacket": 1.12, "coat": 1.14}
# Place in body coordinates (None: in the left hand), depth below which the bag is behind the body, half widths from
# the front and the side, and the outline: heights, and half widths there as shares of these.
_BAGS = {
    "backpack": ((0.0, 0.69, -0.1), 0.015, 0.088, 0.056, (-0.12, -0.1, 0.07, 0.115, 0.13), (0.85, 1, 1, 0.85, 0.5)),
    "suitcase": ((0.15, 0.03, -0.2), 0.0, 0.085, 0.05, (0.0, 0.015, 0.27, 0.285), (0.93, 1, 1, 0.9)),
    "handbag": (None, -0.06, 0.035, 0.07, (-0.17, -0.155, -0.075), (0.95, 1, 0.85)),
    "shoulder": ((0.125, 0.48, 0.0), -0.06, 0.03, 0.075, (-0.06, -0.05, 0.05), (0.9, 1, 0.95)),
}


def draw_figure(look: Look, pose: Pose, height: float, foot: Colour, light_side: float, rng: Generator) -> Sprite:
    """A person's sprite: `height` pixels when standing, the pixel (x, y) of the frame between the feet, the light from
    -1 (left) to 1 (right), and `rng` for the folds of the cloth."""
    oversampling = float(np.clip(_WORKING_HEIGHT / height, 1.0, _MAX_OVERSAMPLING))
    unit = height * oversampling
    canvas = Canvas(*(round(side * unit) for side in _CANVAS))
    brush = Brush(canvas, unit, np.multiply(_FEET, unit), light_side, rng)
    if look.lower_kind == "long_skirt":
        pose = dataclasses.replace(pose, stride=_SKIRT_STRIDE * pose.stride)
    _paint_person(Body(brush, look, pose))
    left, top = (round(float(pixel)) - round(part * height) for pixel, part in zip(foot, _FEET, strict=True))
    return cut_out(canvas, 1 / oversampling, left, top)


def _paint_person(body: Body) -> None:
    near, far = ("left", "right") if body.forward < 0 else ("right", "left")
    sideways = abs(body.forward) > 0.45
    if body.look.hair_kind == "long" and body.facing > -0.2:
        _paint_long_hair(body)
    _paint_bag(body, behind=True)
    if sideways:
        _paint_arm(body, far, _FAR)
    _paint_leg(body, far, _FAR if sideways else 0.93)
    _paint_leg(body, near, 1.0)
    if body.look.lower_kind in _HEMS:
        _paint_skirt(body)
    body.brush.limb(body.seen(0, 0.82, 0), body.seen(0, 0.9, 0.01), (0.032, 0.027), body.look.skin, 0.88)  # neck
    _paint_trunk(body)
    if not sideways:
        _paint_arm(body, far, 0.94)
    if body.facing > -0.3:
        _paint_bag(body, behind=False)
    _paint_arm(body, near, 1.0)
    _paint_head(body)
    if body.facing <= -0.3:
        _paint_bag(body, behind=False)


def _paint_leg(body: Body, side: str, dim: float) -> None:
    brush, look = body.brush, body.look
    hip, knee, ankle, toe = (body.joints[f"{joint}_{side}"] for joint in ("hip", "knee", "ankle", "toe"))
    build = 0.5 + 0.5 * look.build
    shin, thin = (look.lower, 1.0) if look.lower_kind == "trousers" else (look.skin, 0.8)
    heel = ankle + 0.12 * (ankle - toe)
    brush.limb(heel - (0, 0.018, 0), toe, (0.026, 0.019), look.shoes, dim)
    brush.limb(knee, ankle, (0.039 * build * thin, 0.029 * thin), shin, dim)
    if look.lower_kind == "shorts":
        brush.limb(hip, knee, (0.056 * build, 0.036 * build), look.skin, dim)
        brush.limb(hip, knee + 0.18 * (hip - knee), (0.06 * build, 0.052 * build), look.lower, dim)
    else:
        brush.limb(hip, knee, (0.057 * build, 0.041 * build), shin, dim)


def _paint_skirt(body: Body) -> None:
    look, pose = body.look, body.pose
    hem, flare = _HEMS[look.lower_kind]
    flare = flare * (0.6 + 0.4 * look.build) + 0.16 * pose.stride * abs(body.forward)
    waist = body.width(0.09, 0.066) * look.build
    heights = np.array([hem, 0.5 * (hem + 0.54), 0.54]) + body.lift
    sway = 0.012 * np.sin(pose.phase)
    body.brush.profile(heights, [flare, 0.62 * flare + 0.4 * waist, 0.92 * waist], [sway, 0.5 * sway, 0.0], look.lower)


def _paint_trunk(body: Body) -> None:
    look = body.look
    padding = _PADDING[look.upper_kind] * look.build
    widths = body.width(_TRUNK_WIDE, _TRUNK_DEEP) * padding
    heights = _TRUNK_HEIGHTS + body.lift
    lean = 0.035 * body.forward * (heights - 0.5)
    if look.upper_kind == "coat":
        flare = body.width(0.106, 0.084) * padding + 0.03 * body.pose.stride
        heights = np.concatenate([np.array([0.30, 0.40]) + body.lift, heights])
        widths = np.concatenate([[flare, flare * 0.97], widths])
        lean = np.concatenate([[0.0, 0.0], lean])
    elif look.upper_kind != "tee" and look.lower_kind != "dress":
        heights[0] -= 0.02
    body.brush.profile(heights, widths, lean, look.upper)
    if body.facing >= -0.2:
        _paint_front(body, 0.6 * widths[-6] * body.forward)
    elif look.upper_kind == "hoodie":
        body.brush.ellipse((0, 0.812 + body.lift), 0.06, 0.035, look.upper, 0.85)
    if look.scarf:
        scarf = np.array([0.805, 0.83, 0.862]) + body.lift
        body.brush.profile(scarf, [0.045, 0.055, 0.042], 0.0, look.bag_colour, 0.95)


def _paint_front(body: Body, centre: float) -> None:
    """Neckline, opening or buttons, and logo; `centre` is the x of the front's middle."""
    brush, look, facing, lift = body.brush, body.look, body.facing, body.lift
    if look.upper_kind in ("tee", "jumper"):
        brush.ellipse((0.7 * centre, 0.846 + lift), 0.014 + 0.016 * max(facing, 0.0), 0.015, look.skin, 0.9)
    if look.upper_kind == "jacket":
        low, high, gap = 0.45 + lift, 0.835 + lift, 0.034 * facing + 0.008
        left, right = centre * 0.6 - 0.6 * gap, centre * 0.6 + 0.6 * gap
        brush.flat([(centre - gap, low), (centre + gap, low), (right, high), (left, high)],
                   np.multiply(look.inner, 0.95))  # fmt: skip
    elif look.upper_kind == "coat":
        seam = np.multiply(look.upper.colour, 0.62)
        brush.flat([(centre - 0.004, 0.31 + lift), (centre + 0.004, 0.31 + lift), (centre, 0.82 + lift)], seam)
        for height in (0.55, 0.63, 0.71):
            brush.ellipse((centre + 0.014 * facing, height + lift), 0.006, 0.006, look.inner)
    if look.logo and facing > 0.25:
        brush.ellipse((centre * 0.8, 0.715 + lift), 0.046 * facing + 0.008, 0.036, look.inner)


def _paint_arm(body: Body, side: str, dim: float) -> None:
    brush, look = body.brush, body.look
    shoulder, elbow, hand = (body.joints[f"{joint}_{side}"] for joint in ("shoulder", "elbow", "hand"))
    thick = _PADDING[look.upper_kind] * (0.55 + 0.45 * look.build)
    brush.ellipse(hand + 0.15 * (hand - elbow), 0.019, 0.025, look.skin, dim)
    if look.upper_kind == "tee":
        brush.limb(elbow, hand, (0.026, 0.019), look.skin, dim)
        brush.limb(shoulder, elbow, (0.032, 0.026), look.skin, dim)
        brush.limb(shoulder, 0.45 * shoulder + 0.55 * elbow, (0.034 * thick, 0.036 * thick), look.sleeves, 0.95 * dim)
    else:
        brush.limb(elbow, hand, (0.029 * thick, 0.024 * thick), look.sleeves, dim)
        brush.limb(shoulder, elbow, (0.033 * thick, 0.029 * thick), look.sleeves, 0.95 * dim)


def _paint_bag(body: Body, behind: bool) -> None:
    """The bag, if it is on this side of the body; straps are on the near side always."""
    look, brush, colour = body.look, body.brush, body.look.bag_colour
    if look.bag == "none":
        return
    place, behind_below, wide, deep, heights, widths = _BAGS[look.bag]
    if not behind and look.bag == "backpack" and body.facing > 0.1:
        low, high = 0.62 + body.lift, 0.835 + body.lift
        for side in (-1, 1):
            x = 0.062 * side * body.facing + 0.03 * body.forward
            strap = [(x - 0.011, low), (x + 0.011, low), (x * 0.85 + 0.011, high), (x * 0.85 - 0.011, high)]
            brush.flat(strap, np.multiply(colour, 0.85))
    elif not behind and look.bag == "shoulder":
        ends = body.seen(-0.065, 0.835, 0.0), body.seen(0.115, 0.53, 0.0)
        brush.limb(*ends, (0.008, 0.008), np.multiply(colour, 0.8))
    hand = body.joints["hand_left"]
    x, y, depth = body.seen(*place) if place else hand
    if (depth < behind_below) != behind:
        return
    width = body.width(wide, deep)
    if look.bag == "handbag":
        handle = [(x - 0.7 * width, y - 0.08), (x - 0.03, y), (x + 0.03, y), (x + 0.7 * width, y - 0.08)]
        brush.flat(handle, np.multiply(colour, 0.6), 0.8)
    elif look.bag == "suitcase":
        brush.limb((x, y + 0.28), hand, (0.006, 0.006), (70, 70, 74))
    brush.profile(np.array(heights) + y, width * np.array(widths), x, colour)
    if look.bag == "backpack" and body.facing < 0:  # the pocket
        brush.profile(np.array([-0.1, -0.02]) + y, [width * 0.7, width * 0.7], x, np.multiply(colour, 0.78))


def _paint_long_hair(body: Body) -> None:
    """Hair that falls on the shoulders, to be painted before the trunk where the body faces the camera."""
    x, y, _ = body.seen(0.0, _HEAD_HEIGHT, -0.012)
    heights = np.array([y - 0.155, y - 0.1, y, y + 0.04])
    widths = body.width(_HEAD_WIDE, _HEAD_DEEP) * np.array([1.05, 1.3, 1.16, 0.8])
    body.brush.profile(heights, widths, x, body.look.hair, 0.92)


def _paint_head(body: Body) -> None:
    """Face, hair and hat, to be painted after the trunk."""
    centre, width = body.seen(0.0, _HEAD_HEIGHT, 0.012), float(body.width(_HEAD_WIDE, _HEAD_DEEP))
    body.brush.ellipse(centre, width, _HEAD_TALL, body.look.skin)
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
        brush.ellipse(centre + (0, 0.006, 0), width * 1.08, _HEAD_TALL * 1.04, look.hair)
        return
    brush.ellipse(centre + (0, 0.012, 0), width * 1.08, _HEAD_TALL * 0.98, look.hair, span=(-8, 188))
    if abs(body.forward) > 0.25:
        brush.ellipse(centre + (-0.024 * body.forward, 0.004, 0), width * 0.8, _HEAD_TALL * 0.92, look.hair)


def _paint_face(body: Body, centre: np.ndarray) -> None:
    brush, look, forward = body.brush, body.look, body.forward
    face = centre[:2] + (0.022 * forward, -0.011)
    brush.ellipse(face, 0.043 - 0.006 * abs(forward), 0.056, look.skin, 1.03)
    if abs(forward) > 0.6:  # nose and ear of a profile
        brush.ellipse(face + (np.sign(forward) * 0.035, -0.002), 0.009, 0.011, look.skin, 1.05)
        brush.ellipse(centre[:2] - (0.012 * np.sign(forward), 0.012), 0.009, 0.014, look.skin, 0.85)
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
        _paint_long_hair(body)
    elif look.hair_kind == "bun":
        brush.ellipse(body.seen(0.0, _HEAD_HEIGHT + 0.05, -0.05), 0.026, 0.026, look.hair, 0.9)
    elif look.hair_kind == "ponytail" and body.facing < 0.75:
        root, tip = body.seen(0.0, _HEAD_HEIGHT + 0.025, -0.06), body.seen(0.0, _HEAD_HEIGHT - 0.105, -0.088)
        brush.limb(root, tip, (0.021, 0.011), look.hair, 0.88)


def _paint_hat(body: Body, crown: np.ndarray, width: float) -> None:
    brush, look = body.brush, body.look
    if look.hat == "cap" and body.facing > -0.5:
        front = max(body.facing, 0)
        peak = crown[:2] + (0.05 * body.forward, -0.002 - 0.008 * front)
        brush.ellipse(peak, 0.02 + 0.028 * abs(body.forward) + 0.014 * front, 0.012, look.hat_colour, 0.75)
    brush.ellipse(crown, width * 1.14, _HEAD_TALL * 0.86, look.hat_colour, span=(0, 180))
    if look.hat == "beanie":
        fold = np.multiply(look.hat_colour, 0.8)
        brush.profile([crown[1] - 0.012, crown[1] + 0.012], [width * 1.16, width * 1.15], crown[0], fold)
    elif look.hat == "brim":
        brush.ellipse(crown - (0, 0.002, 0), width * 1.85, 0.016, look.hat_colour, 0.9)
