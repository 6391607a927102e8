"""How much of a log's past is kept as entries, behind the snapshot that would do without them.

The parameters `keep_s` and `keep_mb` of a location, on any engine: entries are kept that are
younger than so many seconds, the latest of them in so many MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ovncp.log.location import Location

_DEFAULT_S: Final = 3600
_DEFAULT_MB: Final = 64


@dataclass(frozen=True, slots=True)
class Retention:
    """Entries are kept that are younger than `keep_s` seconds, at most `keep_bytes` of them."""

    keep_s: int = _DEFAULT_S
    keep_bytes: int = _DEFAULT_MB << 20

    @classmethod
    def of(cls, location: Location) -> Retention:
        """What `location` says.  Raises LogError."""
        keep_mb = location.number("keep_mb", _DEFAULT_MB)
        return cls(location.number("keep_s", _DEFAULT_S), keep_mb << 20)


NOTHING: Final = Retention(0, 0)
"""All entries go that may."""
