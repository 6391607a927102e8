"""How full the engine of a log is, and the warnings of that, long before it refuses writes."""

import logging

from ovncp.log.engine import Usage
from ovncp.log.engine_status import TIGHT

_LOG = logging.getLogger("ovncp.clustered")

LEVELS = (0.9, 0.8, TIGHT)
"""The shares of the quota at which a warning is due."""

_RELIEF = 0.05


def share(usage: Usage) -> float:
    """How much of its quota an engine has allocated: 0.0 if it has none."""
    return usage.allocated / usage.quota if usage.quota else 0.0


def words(usage: Usage) -> str:
    """`usage` for people."""
    text = f"{_megabytes(usage.allocated)} allocated, {_megabytes(usage.used)} in use"
    return f"{text}, {_megabytes(usage.quota)} allowed" if usage.quota else text


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):.1f} MiB"


class Warnings:
    """One line in the log each time that a level is reached."""

    def __init__(self, name: str) -> None:
        """`name` is the database's."""
        self._name = name
        self._warned = 0.0

    def look(self, usage: Usage) -> None:
        """Warn if it is time to."""
        now = share(usage)
        level = max((level for level in LEVELS if now >= level), default=0.0)
        if level > self._warned:
            text = "%s: the engine is %.0f %% full (%s); see Upkeep in docs/clustering.md"
            _LOG.warning(text, self._name, 100 * now, words(usage))
            self._warned = level
        elif now < self._warned - _RELIEF:
            self._warned = level
