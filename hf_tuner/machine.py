"""What this machine has left: memory for one process, within the limits set for it."""

import contextlib
import resource
from pathlib import Path

SPARE = 0.9
"""Share of the free memory that is taken for free: it comes in smaller pieces later, and the system needs some."""


def available() -> float:
    """Bytes this process can still take on this machine: free memory, less where a limit is set."""
    free = float("inf")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - mapped())
    with contextlib.suppress(OSError, ValueError, StopIteration):
        group = Path("/sys/fs/cgroup")  # of a container; what is only cached can be had
        lines = (group / "memory.stat").read_text().splitlines()
        cached = int(next(line for line in lines if line.startswith("inactive_file")).split()[1])
        used = int((group / "memory.current").read_text()) - cached
        free = min(free, int((group / "memory.max").read_text()) - used)
    return max(0.0, free * SPARE)


def mapped() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
