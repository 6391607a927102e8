"""Whose a file or a socket is, as /proc tells it (proc(5)), while processes come and go."""

import glob
import os
from collections.abc import Container


def holder(links: Container[str]) -> int:
    """A process that has one of `links` open, each as a descriptor's link reads; 0 if none has.

    Of other users' processes only root sees any.
    """
    # Not Path.glob: it raises when a process ends under it.
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) in links:
                return int(link.split("/")[2])
        except OSError:
            continue  # it ended meanwhile, or is not ours to look into
    return 0
