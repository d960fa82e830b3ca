"""The C library's memory allocator, tuned for large tensors on the CPU."""

import ctypes
import ctypes.util
import platform

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones instead of giving it back to the system each time.

    By default glibc maps every large block again and unmaps it when freed: each step of a network on the CPU pays for
    page faults over all its activations. Affects the whole process; does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(ctypes.util.find_library("c"))
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
