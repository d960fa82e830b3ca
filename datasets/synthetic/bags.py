"""Bags: backpacks, shoulder bags, handbags and suitcases, before or behind the body as the view demands."""

import numpy as np

from datasets.synthetic.pose import turn


def _lies_behind(look, pose, joints):
    facing = np.cos(pose.heading)
    if look.bag == "backpack":
        return facing > -0.15
    if look.bag == "suitcase":
        return facing > 0
    if look.bag == "handbag":
        return joints["hand_left"][2] < -0.06
    return turn((0.12, 0.5, 0.0), pose.heading)[2] < -0.06


def paint_bag_behind(brush, look, pose, joints, lift):
    """What of the bag lies behind the body."""
    if look.bag != "none" and _lies_behind(look, pose, joints):
        _PAINTERS[look.bag](brush, look, pose, joints, lift)


def paint_bag_in_front(brush, look, pose, joints, lift):
    """What of the bag lies before the body: straps included."""
    if look.bag == "none":
        return
    facing = np.cos(pose.heading)
    if look.bag == "backpack" and facing > 0.1:
        for side in (-1, 1):
            x = 0.062 * side * facing + 0.03 * np.sin(pose.heading)
            strap = [(x - 0.011, 0.62 + lift), (x + 0.011, 0.62 + lift), (x * 0.85 + 0.011, 0.835 + lift),
                     (x * 0.85 - 0.011, 0.835 + lift)]  # fmt: skip
            brush.flat(strap, np.multiply(look.bag_colour, 0.85))
    if look.bag == "shoulder":
        _paint_strap(brush, look, pose, lift)
    if not _lies_behind(look, pose, joints):
        _PAINTERS[look.bag](brush, look, pose, joints, lift)


def _paint_strap(brush, look, pose, lift):
    top = turn((-0.065, 0.835 + lift, 0.0), pose.heading)
    low = turn((0.115, 0.53 + lift, 0.0), pose.heading)
    brush.limb(top, low, (0.008, 0.008), tuple(np.multiply(look.bag_colour, 0.8)))


def _backpack(brush, look, pose, joints, lift):
    del joints
    x, y, _ = turn((0.0, 0.69 + lift, -0.1), pose.heading)
    width = np.hypot(0.088 * np.cos(pose.heading), 0.056 * np.sin(pose.heading))
    brush.profile(
        np.array([-0.12, -0.1, 0.07, 0.115, 0.13]) + y, width * np.array([0.85, 1, 1, 0.85, 0.5]), x, look.bag_colour
    )
    if np.cos(pose.heading) < 0:
        pocket = tuple(np.multiply(look.bag_colour, 0.78))
        brush.profile(np.array([-0.1, -0.02]) + y, [width * 0.7, width * 0.7], x, pocket)


def _shoulder(brush, look, pose, joints, lift):
    del joints
    x, y, _ = turn((0.125, 0.48 + lift, 0.0), pose.heading)
    width = np.hypot(0.03 * np.cos(pose.heading), 0.075 * np.sin(pose.heading))
    brush.profile(np.array([-0.06, -0.05, 0.05]) + y, width * np.array([0.9, 1, 0.95]), x, look.bag_colour)


def _handbag(brush, look, pose, joints, lift):
    del lift
    x, y, _ = joints["hand_left"]
    width = np.hypot(0.035 * np.cos(pose.heading), 0.07 * np.sin(pose.heading))
    brush.flat([(x - 0.7 * width, y - 0.08), (x - 0.03, y), (x + 0.03, y), (x + 0.7 * width, y - 0.08)],
               np.multiply(look.bag_colour, 0.6), 0.8)  # fmt: skip
    brush.profile(np.array([-0.17, -0.155, -0.075]) + y, width * np.array([0.95, 1, 0.85]), x, look.bag_colour)


def _suitcase(brush, look, pose, joints, lift):
    x, y, _ = turn((0.15, 0.03 + lift, -0.2), pose.heading)
    width = np.hypot(0.085 * np.cos(pose.heading), 0.05 * np.sin(pose.heading))
    brush.limb((x, y + 0.28), joints["hand_left"], (0.006, 0.006), (70, 70, 74))
    brush.profile(np.array([0.0, 0.015, 0.27, 0.285]) + y, width * np.array([0.93, 1, 1, 0.9]), x, look.bag_colour)
    for rib in (-0.4, 0.4):
        at = x + rib * width
        brush.flat([(at - 0.004, y + 0.02), (at + 0.004, y + 0.02), (at + 0.004, y + 0.26), (at - 0.004, y + 0.26)],
                   np.multiply(look.bag_colour, 0.7))  # fmt: skip


_PAINTERS = {"backpack": _backpack, "shoulder": _shoulder, "handbag": _handbag, "suitcase": _suitcase}
