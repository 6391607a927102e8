"""How much of what takes memory or time clients may have at once, all settings in one place."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ovncp.server.configuration import ConfigurationError


@dataclass(frozen=True)
class Limits:
    """The settings of `--limit`, whose names have hyphens.

    `dumps` first dumps are under way at a time, and a further one begins only if less than
    `dump_bytes` of these wait to be written. `handshakes` is for TLS. What one client makes the
    server keep by not reading it is bounded by `session_backlog_bytes`, what all do by
    `backlog_bytes`. With workers, each has these limits for its own clients.
    """

    dumps: int = 32
    dump_bytes: int = 256 << 20
    handshakes: int = 64
    session_backlog_bytes: int = 256 << 20
    backlog_bytes: int = 1 << 30

    @classmethod
    def parse(cls, settings: Iterable[str]) -> "Limits":
        """The limits for some NAME=N, and defaults for the others. Raises ConfigurationError."""
        return replace(cls(), **dict(map(_setting, settings)))


def _shown(name: str) -> str:
    return name.replace("_", "-")


NAMES = {_shown(field.name): field.name for field in fields(Limits)}


def _setting(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in NAMES:
        raise ConfigurationError(f"--limit: {name} is none of {', '.join(NAMES)}")
    if not number.isdecimal() or not int(number):
        raise ConfigurationError(f"--limit: {name} must be a number above 0, not '{number}'")
    return NAMES[name], int(number)
