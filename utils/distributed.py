"""Several processes as one: who this process is, and values gathered over all. One alone needs no set-up."""

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process works with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def join_processes(device_type: str, patience: timedelta = timedelta(hours=2)) -> torch.device | None:
    """Join the processes that torchrun started; the device of this one, or None where there is no torchrun.

    Args:
        device_type: "cuda" (NCCL connects the processes) or "cpu" (gloo).
        patience: how long a process waits for the others, as while the main one scores an evaluation.
    """
    if "LOCAL_RANK" not in os.environ:
        return None
    local = int(os.environ["LOCAL_RANK"])
    on_cuda = device_type == "cuda"
    if on_cuda:
        torch.cuda.set_device(local)
    # gloo beside NCCL, for values on the CPU that no process should wait for its device to exchange.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=patience)
    return torch.device("cuda", local) if on_cuda else torch.device("cpu")


def leave_processes() -> None:
    """Undo `join_processes`."""
    if is_distributed():
        # torch before 2.8 destroys the group without letting go of the GIL and waits for gloo's threads, which may need
        # it to free the tensors of the last exchange: a deadlock. Gloo's own destructor releases it, so it goes last.
        backend = dist.group.WORLD._get_backend(torch.device("cpu"))
        dist.destroy_process_group()
        del backend


def share_buffers(module: nn.Module) -> None:
    """Give every process the main one's buffers (DistributedDataParallel does so before each training pass only)."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()


def from_main(value: T) -> T:
    """The `value` that the main process has, in every process; it is pickled."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    if not is_distributed():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; the same answer in all. Devices go on working meanwhile."""
    return bool(sum_over_processes(torch.tensor(int(flag))))


def gather_counts(count: int, device: torch.device) -> list[int]:
    """The `count` of each process, by rank; read back from `device`, which the processes exchange tensors on."""
    if not is_distributed():
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = count
    dist.all_reduce(counts)
    return counts.tolist()


def gather_rows(rows: Tensor, counts: list[int]) -> Tensor:
    """The rows of all processes, one under another by rank, given how many each has. Without gradient."""
    if not is_distributed():
        return rows
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
