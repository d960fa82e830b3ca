"""A thing to measure, how its time and memory are taken, and searching and training with random weights."""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.benchmark import Timer, timer
from yacs.config import CfgNode

from defaults import load_cfg
from engine.solver import build_optimizer, build_schedule, precision
from engine.train import Progress, TrainSettings, train_one_epoch
from models import build_model
from models.base import PersonSearchModel
from models.fast import accelerate, prepare_for_inference
from tools.benchmark.case import Case, Figures

PREPARED = ("fast", "compiled")
# Random weights find nobody or hundreds. All proposals qualify, and the best ten people go to the second head.
LOAD = {
    "MODEL.DETECTION_HEAD.SCORE_THRESH": "-1.0",
    "MODEL.DETECTION_HEAD.MAX_DETECTIONS": "10",
    "MODEL.SEARCH_HEAD.SCORE_THRESH": "-1.0",
    "MODEL.ANCHOR_FREE.MIN_PROBABILITY": "-1.0",
    "MODEL.ANCHOR_FREE.MAX_DETECTIONS": "10",
    "MODEL.GALLERY_SCORE_THRESH": "-1.0",
    "MODEL.OIM.NUM_IDS": "500",  # near PRW's 482
}
PEOPLE = 10  # in a drawn training image
STEPS = {"cpu": 1, "cuda": 10}  # of a sample: waiting for the device after each step would slow down training


def options_of(case: Case) -> CfgNode:
    """The options of a case: its image size, `LOAD`, then its own."""
    size = ["INPUT.MIN_SIZE", str(min(case.image_size)), "INPUT.MAX_SIZE", str(max(case.image_size))]
    return load_cfg(case.cfg, [*size, *chain(*LOAD.items()), *case.opts])


def drawn_images(count: int, size: tuple[int, int]) -> list[Tensor]:
    """Images uint8 3 x H x W of noise, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randint(256, (count, 3, *size), generator=generator, dtype=torch.uint8))


def drawn_targets(count: int, size: tuple[int, int], identities: int) -> list[dict]:
    """Training targets of `count` images, PEOPLE standing people each."""
    random = torch.rand(3, count, PEOPLE, generator=torch.Generator().manual_seed(2))
    heights = (0.2 + 0.4 * random[0]) * min(size)
    left, top = random[1] * (size[1] - 0.4 * heights), random[2] * (size[0] - heights)
    boxes = torch.stack([left, top, left + 0.4 * heights, top + heights], dim=2)
    labels = torch.arange(count * PEOPLE).view(count, PEOPLE) % identities + 1
    return [{"boxes": boxes[i], "labels": labels[i], "img_name": f"drawn {i}"} for i in range(count)]


def new_network(variant: str, cfg: CfgNode, device: torch.device) -> PersonSearchModel:
    """The network of a variant as it is trained, with the same random weights each time."""
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg).to(device)
    if variant in PREPARED:
        return accelerate(model)
    return model.to(memory_format=torch.channels_last if variant == "channels-last" else torch.contiguous_format)


def timed(work: Callable[[], object], seconds: float, device: torch.device) -> tuple[list[float], Figures]:
    """Seconds of each call of `work` but the first, waiting for the device; figures `warm-up s` and `peak MiB`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what preparing took does not count
    start = timer()
    work()
    warm_up = timer() - start
    calls = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    samples = calls.blocked_autorange(min_run_time=seconds).times
    return samples, {"peak MiB": [peak_memory(device)], "warm-up s": [warm_up]}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held, MiB: tensors on a CUDA device, else everything in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux's own figure: that of the module `resource` begins with the parent process's.
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measure_inference(case: Case, cfg: CfgNode, device: torch.device) -> Figures:
    """Images per second, from uint8 images in main memory to the people on the device, and milliseconds of the stages.

    Raises ValueError where the network's results are not finite.
    """
    dtype, prepared = precision(case.precision, "--precisions"), case.name in PREPARED
    model = new_network(case.name, cfg, device).eval()
    if prepared:
        model = prepare_for_inference(model, dtype, case.name == "compiled")
    images = drawn_images(case.batch_size, case.image_size)

    def search() -> list[dict[str, Tensor]]:
        with torch.autocast(device.type, dtype, enabled=dtype is not None and not prepared):
            return model([image.to(device, non_blocking=True) for image in images])

    with torch.inference_mode():
        seconds, figures = timed(search, case.seconds, device)
        found = search()
        if case.name != "compiled":  # marks of the profiler would be compiled too
            figures |= stage_times(model, search, case.batch_size)
    if not all(value.isfinite().all() for image in found for value in image.values()):
        raise ValueError("the network's results are not finite in this precision")
    people = sum(len(image["boxes"]) for image in found) / case.batch_size
    return {"images/s": [case.batch_size / duration for duration in seconds], "people": [people], **figures}


def stage_times(model: nn.Module, work: Callable[[], object], batch_size: int) -> Figures:
    """Milliseconds an image (on CUDA the device's) of each top-level child of a network in one call of `work`, and of
    the `rest`, by the profiler. The children stay marked for it."""
    for name, child in model.named_children():
        child.forward = record_function(name)(child.forward)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
    with profile(activities=activities) as profiler, record_function("rest"):
        work()
    spent = {event.key: event.device_time_total or event.cpu_time_total for event in profiler.key_averages()}
    stages = {name: spent[name] for name, _ in model.named_children() if name in spent}
    stages["rest"] = spent["rest"] - sum(stages.values())
    return {f"{name} ms": [microseconds / 1000 / batch_size] for name, microseconds in stages.items()}


def measure_training(case: Case, cfg: CfgNode, device: torch.device) -> Figures:
    """Optimiser steps per second on a drawn batch: forward, backward, clipping, optimiser."""
    model, steps = new_network(case.name, cfg, device), STEPS[device.type]
    dtype, optimizer = precision(case.precision, "--precisions"), build_optimizer(cfg, model)
    settings = TrainSettings(device, dtype, cfg.SOLVER.ACCUMULATE, cfg.SOLVER.CLIP_GRADIENTS)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    # So many steps of an epoch that those measured are the first of the warm-up, which cannot diverge.
    schedule, progress = build_schedule(cfg, 1000), Progress(1000)
    images = drawn_images(case.batch_size, case.image_size)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]  # as the loader does
    batch = (images, drawn_targets(case.batch_size, case.image_size, cfg.MODEL.OIM.NUM_IDS))

    def train() -> None:
        train_one_epoch(model, [batch] * steps * settings.accumulate, optimizer, schedule, scaler, progress, settings)

    seconds, figures = timed(train, case.seconds, device)
    return {"steps/s": [steps / duration for duration in seconds], **figures}
