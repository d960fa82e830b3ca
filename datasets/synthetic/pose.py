"""A walking skeleton in three dimensions, seen from one side.

Body coordinates are in statures: x to the person's left, y up from the ground, z forwards. Seen coordinates are x to
the right of the picture, y up and depth towards the camera.
"""

from dataclasses import dataclass

import numpy as np

SHOULDER_HEIGHT, SHOULDER_SPAN = 0.81, 0.096
HIP_HEIGHT, HIP_SPAN = 0.5, 0.046
THIGH, SHIN, FOOT = 0.235, 0.225, 0.085
UPPER_ARM, FOREARM = 0.165, 0.15
_DOWNWARD_VIEW = 0.2  # the camera looks down: what is nearer lies lower in the picture


@dataclass(frozen=True)
class Pose:
    """A moment of a walk.

    `heading` in radians: 0 towards the camera, pi / 2 to the right of the picture, pi away. `phase` of the step in
    radians, `stride` the swing of the thighs in radians (0 stands), `bends` of the left and right elbow in radians.
    """

    heading: float
    phase: float
    stride: float
    bends: tuple


def turn(point, heading):
    """A point of the body (x, y, z) as the camera sees it: x, y, depth."""
    x, y, z = point
    depth = z * np.cos(heading) - x * np.sin(heading)
    return np.array([x * np.cos(heading) + z * np.sin(heading), y - _DOWNWARD_VIEW * depth, depth])


def _swing(length, angle, spread=0.0):
    """The vector of a limb that hangs down, swung forwards by `angle` and sideways by `spread` (radians)."""
    return length * np.array([np.sin(spread), -np.cos(angle) * np.cos(spread), np.sin(angle)])


def _leg(side, pose):
    phase = pose.phase if side > 0 else pose.phase + np.pi
    thigh = pose.stride * np.sin(phase)
    bend = 0.06 + 1.9 * pose.stride * max(0.0, np.cos(phase))
    hip = np.array([side * HIP_SPAN, HIP_HEIGHT, 0.0])
    knee = hip + _swing(THIGH, thigh)
    ankle = knee + _swing(SHIN, thigh - bend)
    pitch = 0.6 * (thigh - bend)
    toe = ankle + FOOT * np.array([0.12 * side, -0.42 + np.sin(pitch), np.cos(pitch)])
    return hip, knee, ankle, toe


def _arm(side, pose, build):
    phase = pose.phase + np.pi if side > 0 else pose.phase
    swing = 0.85 * pose.stride * np.sin(phase)
    bend = pose.bends[0 if side > 0 else 1]
    shoulder = np.array([side * SHOULDER_SPAN * build, SHOULDER_HEIGHT - 0.02, 0.0])
    elbow = shoulder + _swing(UPPER_ARM, swing - 0.1, side * 0.12)
    return shoulder, elbow, elbow + _swing(FOREARM, swing + bend, side * (0.02 - 0.25 * min(bend, 1.0)))


def skeleton(pose, build):
    """Seen joints: a dict of arrays (x, y, depth) in statures, the lower foot on the ground.

    Keys: hip, knee, ankle, toe, shoulder, elbow, hand, each with the suffix _left or _right.
    """
    joints = {}
    for name, side in (("left", 1), ("right", -1)):
        for joint, point in zip(("hip", "knee", "ankle", "toe"), _leg(side, pose), strict=True):
            joints[f"{joint}_{name}"] = point
        for joint, point in zip(("shoulder", "elbow", "hand"), _arm(side, pose, build), strict=True):
            joints[f"{joint}_{name}"] = point
    lift = 0.042 - min(joints["ankle_left"][1], joints["ankle_right"][1])
    return {name: turn(point + (0, lift, 0), pose.heading) for name, point in joints.items()}, lift
