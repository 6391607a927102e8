"""A runtime command of a daemon, as data: what `ovs-appctl list-commands` shows and calls."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

Handler = Callable[[list[str]], str | Awaitable[str]]

ANY_NUMBER = 2**31 - 1
"""`max_args` of a command that takes any number of arguments."""


class Command(NamedTuple):
    """One command.  `handler` gets the arguments and returns the reply, or an awaitable of it."""

    name: str
    usage: str
    min_args: int
    max_args: int
    handler: Handler


class CommandError(Exception):
    """Raised by a handler: its text is the command's error reply."""
