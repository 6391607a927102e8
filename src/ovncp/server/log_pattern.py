"""Log levels, and a log entry written by a pattern (ovs-appctl(8), vlog/set PATTERN)."""

import functools
import os
import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

LEVELS = ("OFF", "EMER", "ERR", "WARN", "INFO", "DBG")
OFF, EMER, ERR, WARN, INFO, DBG = range(6)
_SEVERITIES = (1, 1, 3, 4, 5, 7)  # syslog's, by level: OVS logs INFO as "notice"

_BOOT = time.monotonic()


class Entry(NamedTuple):
    """One message with all that a pattern may show of it."""

    program: str
    subprogram: str
    module: str
    level: int
    message: str
    number: int
    time: float
    facility: int


_CONVERSION = re.compile(r"%(-?)(0?)(\d*)(?:([cdD])\{([^}]*)\}?|(.?))", re.DOTALL)
_DEFAULT_TIME = "%Y-%m-%d %H:%M:%S.###"


@functools.lru_cache(maxsize=16)
def _strftime(form: str, second: int, zone: Callable[[float], time.struct_time]) -> str:
    return time.strftime(form, zone(second))


def _clock(form: str, now: float, zone: Callable[[float], time.struct_time]) -> str:
    """`form` by strftime, with a run of n `#` as n digits of the fraction of the second."""
    text = _strftime(form, int(now), zone)
    if "#" not in text:
        return text
    millis = f"{int(now % 1 * 1000):03d}"
    return re.sub("#+", lambda run: millis.ljust(len(run[0]), "0")[: len(run[0])], text)


Field = Callable[[Entry, str], str]

_FIELDS: dict[str, Field] = {
    "A": lambda entry, _: entry.program,
    "B": lambda entry, _: str(entry.facility + _SEVERITIES[entry.level]),
    "c": lambda entry, _: entry.module,
    "d": lambda entry, form: _clock(form or _DEFAULT_TIME, entry.time, time.localtime),
    "D": lambda entry, form: _clock(form or _DEFAULT_TIME, entry.time, time.gmtime),
    "E": lambda entry, _: socket.gethostname(),
    "m": lambda entry, _: entry.message.rstrip("\n"),
    "N": lambda entry, _: str(entry.number),
    "n": lambda entry, _: "\n",
    "p": lambda entry, _: LEVELS[entry.level],
    "P": lambda entry, _: str(os.getpid()),
    "r": lambda entry, _: str(int((time.monotonic() - _BOOT) * 1000)),
    "t": lambda entry, _: entry.subprogram or "main",
    "T": lambda entry, _: f"({entry.subprogram})" if entry.subprogram else "",
}

Render = Callable[[Entry], str]


def compile_pattern(pattern: str) -> Render:
    """The function that writes an entry by `pattern` (ovs-appctl(8), vlog/set PATTERN)."""
    pieces: list[Render] = []
    end = 0
    for match in _CONVERSION.finditer(pattern):
        pieces += [_literal(pattern[end : match.start()]), _conversion(match)]
        end = match.end()
    pieces.append(_literal(pattern[end:]))
    return lambda entry: "".join([piece(entry) for piece in pieces])


def _literal(text: str) -> Render:
    return lambda entry: text


def _itself(letter: str) -> Field:
    return lambda entry, form: letter


def _conversion(match: re.Match[str]) -> Render:
    left, zero, digits, timed, form, plain = match.groups()
    letter = timed or plain
    width, pad = int(digits or 0), zero or " "
    field = _FIELDS.get(letter) or _itself(letter)
    if left:
        return lambda entry: field(entry, form).ljust(width, pad)
    return lambda entry: field(entry, form).rjust(width, pad)
