"""A walking body in three dimensions, seen from one side.

Body coordinates are in statures: x to the person's left, y up from the ground, z forwards. Seen coordinates are x to
the right of the picture, y up and depth towards the camera.
"""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.canvas import Brush, Colour
from datasets.synthetic.wardrobe import Look

_SHOULDER_HEIGHT, _SHOULDER_SPAN = 0.81, 0.096
_HIP_HEIGHT, _HIP_SPAN = 0.5, 0.046
_THIGH, _SHIN, _FOOT = 0.235, 0.225, 0.085
_UPPER_ARM, _FOREARM = 0.165, 0.15
_DOWNWARD_VIEW = 0.2  # the camera looks down: nearer points are lower in the picture


@dataclass(frozen=True)
class Pose:
    """A moment of a walk.

    `heading` in radians: 0 towards the camera, pi / 2 to the right of the picture, pi away. `phase` of the step in
    radians, `stride` the swing of the thighs in radians (0 stands), `bends` of the left and right elbow in radians.
    """

    heading: float
    phase: float
    stride: float
    bends: tuple[float, float]


def _swing(length: float, angle: float, spread: float = 0.0) -> np.ndarray:
    """The vector of a limb that hangs down, swung forwards by `angle` and sideways by `spread` (radians)."""
    return length * np.array([np.sin(spread), -np.cos(angle) * np.cos(spread), np.sin(angle)])


def _leg(side: int, pose: Pose) -> dict[str, np.ndarray]:
    phase = pose.phase if side > 0 else pose.phase + np.pi
    thigh = pose.stride * np.sin(phase)
    bend = 0.06 + 1.9 * pose.stride * max(0.0, np.cos(phase))
    hip = np.array([side * _HIP_SPAN, _HIP_HEIGHT, 0.0])
    knee = hip + _swing(_THIGH, thigh)
    ankle = knee + _swing(_SHIN, thigh - bend)
    pitch = 0.6 * (thigh - bend)
    toe = ankle + _FOOT * np.array([0.12 * side, -0.42 + np.sin(pitch), np.cos(pitch)])
    return {"hip": hip, "knee": knee, "ankle": ankle, "toe": toe}


def _arm(side: int, pose: Pose, build: float) -> dict[str, np.ndarray]:
    phase = pose.phase + np.pi if side > 0 else pose.phase
    swing = 0.85 * pose.stride * np.sin(phase)
    bend = pose.bends[0 if side > 0 else 1]
    shoulder = np.array([side * _SHOULDER_SPAN * build, _SHOULDER_HEIGHT - 0.02, 0.0])
    elbow = shoulder + _swing(_UPPER_ARM, swing - 0.1, side * 0.12)
    hand = elbow + _swing(_FOREARM, swing + bend, side * (0.02 - 0.25 * min(bend, 1.0)))
    return {"shoulder": shoulder, "elbow": elbow, "hand": hand}


class Body:
    """A look in a pose, with the brush that paints it. Measures are in statures.

    `joints` are the seen joints (x, y, depth): hip, knee, ankle, toe, shoulder, elbow and hand, each with the suffix
    _left or _right. `lift` is the height by which the body is raised so that the lower foot is on the ground.
    """

    def __init__(self, brush: Brush, look: Look, pose: Pose) -> None:
        self.brush, self.look, self.pose = brush, look, pose
        self.facing, self.forward = np.cos(pose.heading), np.sin(pose.heading)
        joints = {
            f"{joint}_{name}": point
            for name, side in (("left", 1), ("right", -1))
            for joint, point in (_leg(side, pose) | _arm(side, pose, look.build)).items()
        }
        self.lift = 0.042 - min(joints["ankle_left"][1], joints["ankle_right"][1])
        self.joints = {name: self.seen(*point) for name, point in joints.items()}

    def seen(self, x: float, y: float, z: float) -> np.ndarray:
        """A point of the body as the camera sees it: x, y, depth."""
        depth = z * self.facing - x * self.forward
        return np.array([x * self.facing + z * self.forward, y + self.lift - _DOWNWARD_VIEW * depth, depth])

    def width(self, wide: Colour | float, deep: Colour | float) -> Colour | float:
        """Half the seen width of an upright part that is `wide` from the front and `deep` from the side."""
        return np.hypot(wide * self.facing, deep * self.forward)
