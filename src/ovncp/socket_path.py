"""Socket files at paths of any length, which a socket address has no room for (unix(7))."""

import contextlib
import os
from collections.abc import Iterator

_LONGEST = 107  # bytes, in a struct sockaddr_un


@contextlib.contextmanager
def socket_path(path: str) -> Iterator[str]:
    """A name for `path` that fits a socket address: itself, or through its open directory.

    It is good within the block, to bind or to connect to.  Raises OSError.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
