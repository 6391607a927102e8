"""What the system says of this process (proc(5)): time, memory, descriptors."""

import os
import resource
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Places in /proc/self/stat after the name, which may have any characters.
_START_TICKS, _VIRTUAL_BYTES, _RESIDENT_PAGES = 19, 20, 21


class Process:
    """The figures of now; times are in seconds, `started` since the epoch."""

    def __init__(self) -> None:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TICKS]) / _TICKS
        self.started = time.time() - age
        self.virtual_bytes = int(fields[_VIRTUAL_BYTES])
        self.resident_bytes = int(fields[_RESIDENT_PAGES]) * _PAGE_BYTES
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.n_descriptors = len(os.listdir("/proc/self/fd"))
        self.max_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
