"""Open Virtual Network at the scale of thousands of hypervisors: docs/flow.md is the way in.

In a checkout, the modules come from build/compiled if `make compiled` has put the source there,
with its hot path as machine code, and the source has not changed since. With OVNCP_SOURCE in the
environment they come from the source (docs/adr/0006-the-hot-path-may-be-compiled.md).
"""

import os
import sys
from collections.abc import Iterator

__version__ = "0.1.0"

_SOURCE = os.path.dirname(os.path.abspath(__file__))
_BUILD = os.path.join(os.path.dirname(os.path.dirname(_SOURCE)), "build", "compiled")


def _times(directory: str) -> Iterator[float]:
    """When each module below `directory` was last changed, in seconds since the epoch."""
    for found in os.scandir(directory):
        if found.is_dir():
            yield from _times(found.path)
        elif found.name.endswith(".py"):
            yield found.stat().st_mtime


def _is_compiled() -> bool:
    if os.environ.get("OVNCP_SOURCE"):
        return False
    try:
        compiled = os.stat(os.path.join(_BUILD, "stamp")).st_mtime
    except OSError:
        return False
    return max(_times(_SOURCE)) <= compiled


IS_COMPILED = _is_compiled()
"""Whether the hot path is machine code."""

if IS_COMPILED:
    __path__ = [os.path.join(_BUILD, "ovncp")]
    # Has the library that the compiled modules share.
    sys.path.append(_BUILD)
