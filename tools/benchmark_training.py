"""Speed and memory of training: whole steps, as tools.train makes them."""

from itertools import repeat

import torch
from yacs.config import CfgNode

from engine.solver import build_optimizer, build_scheduler, precision
from engine.trainer import StepSettings, new_scaler, train_one_epoch
from tools.benchmark_cases import Case, Measurement, repeated, seconds_of
from tools.benchmark_machine import peak_memory
from tools.benchmark_network import drawn_images, drawn_targets, new_network
from tools.benchmark_variants import VARIANTS

STEPS_PER_EPOCH = 1000
"""Of the learning rates' schedule: the steps measured are the first of a warm-up, which cannot diverge."""


def measure_training(case: Case, cfg: CfgNode, device: torch.device) -> Measurement:
    """Iterations per second on a drawn batch: forward, backward, clipping, optimiser.

    Raises:
        DivergedError: a loss is not finite.
        RuntimeError: the device lacks memory, or cannot do what is asked.
    """
    model = VARIANTS[case.name].learner(new_network(cfg, device))
    settings = StepSettings(
        device, precision(case.precision, "--precisions"), cfg.SOLVER.ACCUMULATE, cfg.SOLVER.CLIP_GRADIENTS
    )
    optimizer = build_optimizer(cfg, model)
    scheduler = build_scheduler(cfg, optimizer, STEPS_PER_EPOCH)
    scaler = new_scaler(settings)
    images = drawn_images(case.batch_size, case.image_size)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]  # as the loader does
    # A device works on while the host prepares the next step; it stops where losses are read.
    together = settings.report_every if device.type == "cuda" else 1
    batch = (images, drawn_targets(case.batch_size, case.image_size, cfg.MODEL.OIM.NUM_IDS))

    def steps() -> None:
        passes = repeat(batch, settings.accumulate * together)
        train_one_epoch(model, passes, optimizer, scheduler, scaler, settings, lambda _: None)

    warm_up = seconds_of(steps, device)
    seconds, cores = repeated(steps, case.repeat, device)
    facts = {"peak MiB": peak_memory(device), "warm-up s": warm_up, "cores": cores}
    return Measurement({"iterations/s": [together / s for s in seconds]}, facts=facts)
