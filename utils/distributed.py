"""Several processes that work together: rank, exchange of values. A single process needs no set-up."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from utils.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others, as while the main one scores an evaluation."""


def is_distributed() -> bool:
    """Whether there is a process group."""
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


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did: NCCL connects CUDA devices, gloo CPU processes."""
    if "LOCAL_RANK" in os.environ:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield
    leave_processes()  # not after an error: it could wait for processes that no longer answer


def leave_processes() -> None:
    """Destroy the process group, if there is one."""
    if is_distributed():
        # torch before 2.8 destroys the group without releasing the GIL and waits for gloo's threads, which may need
        # it to free the tensors of the last exchange: a deadlock. Gloo's own destructor releases it, so it runs last.
        backend = dist.group.WORLD._get_backend(torch.device("cpu"))
        dist.destroy_process_group()
        del backend


def all_cores() -> threadpool_limits:
    """A context in which this process computes on all CPU cores while others wait: torchrun allows each one thread."""
    return threadpool_limits(os.cpu_count() if is_distributed() else None)


def share_buffers(module: nn.Module) -> None:
    """Copy the main process's buffers to all (DistributedDataParallel does so before each training pass only)."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()


def from_main(compute: Callable[[], T]) -> T:
    """Run `compute` in the main process; all get its (pickled) result, or raise its UserError or OSError."""
    outcome: list = [None, None]
    try:
        outcome[0] = compute() if is_main() else None
    except (UserError, OSError) as error:
        outcome[1] = error
    if is_distributed():
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def gather_objects(value: T) -> list[T]:
    """The `value` of each process, by rank; it is pickled."""
    values = [value] * world_size()
    if is_distributed():
        dist.all_gather_object(values, value)
    return values


def any_process(*flags: bool) -> list[bool]:
    """For each flag whether it is set in any process. Exchanged on the CPU: devices go on working meanwhile."""
    return sum_over_processes(torch.tensor(flags, dtype=torch.int64)).bool().tolist()


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    total = value.detach().clone()
    if is_distributed():
        dist.all_reduce(total)
    return total


def gather_counts(count: int, device: torch.device) -> list[int]:
    """The `count` of each process, by rank; exchanged on `device`."""
    if not is_distributed():
        return [count]
    return gather_rows(torch.tensor([count], device=device), [1] * world_size()).tolist()


def gather_rows(rows: Tensor, counts: list[int]) -> Tensor:
    """The rows of all processes, one under another by rank, given how many each has. Without gradient."""
    if not is_distributed():
        return rows
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
