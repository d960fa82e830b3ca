"""The curves of a training run, from its TensorBoard events."""

from pathlib import Path

import numpy as np

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Steps and values by name, such as `train/loss_total`."""


def read_curves(folder: Path) -> Curves:
    """The curves of the training run in a folder; steps that were trained again after a resumption count once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    curves = {}
    for name in events.Tags()["scalars"]:
        steps, values = zip(*((event.step, event.value) for event in events.Scalars(name)), strict=True)
        curves[name] = np.array(steps), np.array(values)
    return curves
