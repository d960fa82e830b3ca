"""Speed and memory of searching images, and the time of each stage."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from engine.solver import precision
from engine.trainer import to_device
from models.base import PersonSearchModel
from tools.benchmark_cases import Case, Measurement, repeated, seconds_of, wait_for
from tools.benchmark_machine import forget_peak, peak_memory
from tools.benchmark_network import drawn_images, new_network
from tools.benchmark_variants import VARIANTS
from utils.images import read_image

JPEG_QUALITY = 90
MILLISECONDS = 1000

MODULES = {
    "preprocess": "preprocess",
    "stem": "stem",
    "RPN": "rpn",
    "first head": "detection_head",
    "its features": "detection_head.features",
    "its RoIAlign": "detection_head.roi_align",
    "second head": "search_head",
}
"""Stage -> the submodule whose calls it is. Those that a network lacks are left out; features begin with RoIAlign."""
STAGES = ("decode", *MODULES, "post-processing")


class StageClock:
    """The time that parts of a network take, waiting for the device before and after each.

    Args:
        device: where the network is.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._starts: dict[str, float] = {}

    def start(self, stage: str) -> None:
        """A call of the stage begins."""
        wait_for(self.device)
        self._starts[stage] = perf_counter()

    def stop(self, stage: str) -> None:
        """The call ends."""
        wait_for(self.device)
        self.seconds[stage] += perf_counter() - self._starts.pop(stage)

    def timed(self, stage: str, work: Callable) -> Callable:
        """`work`, its calls counted as the stage's."""

        def counted(*args, **kwargs):
            self.start(stage)
            result = work(*args, **kwargs)
            self.stop(stage)
            return result

        return counted


@contextmanager
def watched(model: PersonSearchModel, clock: StageClock, counts: dict[str, int]) -> Iterator[None]:
    """While open, the network's parts report to the clock, and to `counts` how many proposals and people there were."""
    handles = []
    for stage, path in MODULES.items():
        if path.rpartition(".")[2] in dict(model.get_submodule(path.rpartition(".")[0]).named_children()):
            part = model.get_submodule(path)
            # No arguments are looked at: a hook that returns None changes nothing.
            handles.append(part.register_forward_pre_hook(lambda *_, stage=stage: clock.start(stage)))
            handles.append(part.register_forward_hook(lambda *_, stage=stage: clock.stop(stage)))

    def count(_, inputs: tuple, detections: list) -> None:
        counts["proposals"] = sum(len(boxes) for boxes in inputs[1])
        counts["people"] = sum(len(found.boxes) for found in detections)

    handles.append(model.detection_head.register_forward_hook(count))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_inference(case: Case, cfg: CfgNode, device: torch.device) -> Measurement:
    """Images per second from uint8 images in main memory to their people on the device, and the stages.

    Raises:
        ValueError: the network's results are not finite.
        RuntimeError: the device lacks memory, or cannot do what is asked.
    """
    dtype = precision(case.precision, "--precisions")
    images = drawn_images(case.batch_size, case.image_size)
    model = VARIANTS[case.name].searcher(new_network(cfg, device), dtype)

    def search() -> list[dict[str, Tensor]]:
        return model(to_device(images, [], device)[0])

    forget_peak(device)  # what preparing took
    with torch.inference_mode():
        warm_up = seconds_of(search, device)
        _check_finite(search())
        seconds, cores = repeated(search, case.repeat, device)
        memory = peak_memory(device)
        counts: dict[str, int] = {}
        stages = _stages(model, images, device, case.repeat, counts)
    facts = {"peak MiB": memory, "warm-up s": warm_up, "cores": cores}
    facts |= {f"{what} an image": count / case.batch_size for what, count in counts.items()}
    return Measurement({"images/s": [case.batch_size / s for s in seconds]}, stages, facts)


def _check_finite(found: list[dict[str, Tensor]]) -> None:
    if not all(value.isfinite().all() for image in found for value in image.values()):
        raise ValueError("the network's results are not finite in this precision")


def _stages(
    model: PersonSearchModel, images: list[Tensor], device: torch.device, repeat: int, counts: dict[str, int]
) -> dict[str, list[float]]:
    """Milliseconds an image of each stage, in passes of their own: the waiting would spoil those of the whole."""
    samples: dict[str, list[float]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        files = _write(images, Path(folder))
        for _ in range(repeat):
            clock = StageClock(device)
            read = clock.timed("decode", lambda: [_read(file) for file in files])()
            with watched(model, clock, counts):
                searched = model.search(to_device(read, [], device)[0])
            clock.timed("post-processing", lambda found: [image.gallery() for image in found])(searched)
            for stage, seconds in clock.seconds.items():
                samples[stage].append(MILLISECONDS * seconds / len(images))
    return dict(samples)


def _write(images: list[Tensor], folder: Path) -> list[Path]:
    files = [folder / f"{index}.jpg" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, quality=JPEG_QUALITY)
    return files


def _read(file: Path) -> Tensor:
    return torch.from_numpy(read_image(file)).permute(2, 0, 1)
