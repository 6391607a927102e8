"""Random uuids, fast (RFC 4122 section 4.4)."""

import random
from collections.abc import Callable
from typing import Final

from ovncp.ovsdb.schema import format_uuid

_FIXED_BITS: Final = ~((0xF << 76) | (0x3 << 62)) & (2**128 - 1)
_VERSION_AND_VARIANT: Final = (0x4 << 76) | (0x2 << 62)


def make_source(seed: bytes) -> Callable[[], str]:
    """A function that returns another uuid at each call; `seed` decides which."""
    getrandbits = random.Random(seed).getrandbits

    def new_uuid() -> str:
        return format_uuid(getrandbits(128) & _FIXED_BITS | _VERSION_AND_VARIANT)

    return new_uuid
