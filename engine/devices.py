"""The device that a process computes on."""

import os

import torch

from utils.errors import UserError


def select_device(name: str) -> torch.device:
    """The device of the option DEVICE, made the current one, so that nothing is allocated on another GPU.

    "auto" is CUDA where there is one, else the CPU. Of several processes that torchrun starts for CUDA each takes the
    device of its own number.

    Raises:
        UserError: no such device, or fewer devices than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"DEVICE {name!r} is not a device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(f"DEVICE {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    count, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    index = device.index or 0
    if processes > 1:
        if device.index is not None:
            raise UserError(f"DEVICE {name} is one device for {processes} processes: use DEVICE cuda")
        if processes > count:
            raise UserError(f"{processes} processes need as many devices: {_visible(count)}; start fewer")
        index = int(os.environ["LOCAL_RANK"])
    if index >= count:
        raise UserError(f"DEVICE {name} does not exist: {_visible(count)}; choose another, or DEVICE cpu")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _visible(count: int) -> str:
    """How many devices there are, and what limits them."""
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    limited = f" with CUDA_VISIBLE_DEVICES={limit!r}" if limit is not None else ""
    return f"PyTorch finds {count} CUDA devices here{limited}"
