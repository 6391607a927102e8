"""What a verb reports: lines for people, JSON for programs, and the exit status for scripts."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ovncp.log.base import LogError
from ovncp.ops.refusal import Refusal

FINE, FOUND, FAILED = 0, 1, 2
"""Exit statuses, as those of diff(1): all is well; something was found; it could not be done."""


class Report(Protocol):
    """The outcome of a verb that could be done."""

    @property
    def status(self) -> int:
        """`FINE` or `FOUND`."""

    def lines(self) -> Iterable[str]:
        """The report for people, line by line."""

    def to_json(self) -> Any:
        """The same for programs."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the errors of a log into refusals: a verb cannot do anything about them."""
    try:
        yield
    except LogError as error:
        raise Refusal(words(error)) from error


def words(error: LogError) -> str:
    """What a log's error says, without the tag that it has for OVSDB's clients."""
    return error.details + (f" ({error.io_error})" if error.io_error else "")
