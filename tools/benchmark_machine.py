"""What a benchmark ran on, and how much memory it took."""

import os
import platform
import resource
import subprocess
from pathlib import Path

import torch
import torchvision

from tools.benchmark_cases import MEBIBYTE

ROOT = Path(__file__).resolve().parents[1]
_KIBIBYTE = 1024


def describe_machine(device: torch.device) -> dict[str, object]:
    """Processor, memory, devices and versions; plain types. `load`: processes that run or wait, mean of a minute."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory MiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEBIBYTE,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2),
        "device": str(device),
    }
    return facts | (_cuda(device) if device.type == "cuda" else {})


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the project, marked where files differ from it; "unknown" outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cuda(device: torch.device) -> dict[str, object]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "GPU": properties.name,
        "GPU memory MiB": properties.total_memory // MEBIBYTE,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
    }


def forget_peak(device: torch.device) -> None:
    """Have `peak_memory` start anew on a CUDA device; the mark of main memory stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held, MiB: tensors on a CUDA device, else everything in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    return _peak_main_memory() / MEBIBYTE


def _peak_main_memory() -> int:
    """Bytes. The kernel's own mark where there is one: the portable figure starts with that of the parent process."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    if marks:
        return marks[0] * _KIBIBYTE
    unit = 1 if platform.system() == "Darwin" else _KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
