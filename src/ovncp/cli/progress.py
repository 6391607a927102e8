"""How far a verb is, as one line on the terminal that the next one takes the place of."""

import shutil
import sys
import time

_PERIOD_SECONDS = 0.1
_BAR_WIDTH = 24
_SUBJECT_WIDTH = 8  # of the words, before numbers that change


class Progress:
    """Shows the latest of what it is told, on standard error; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._next = 0.0
        self._subject = ""

    def __call__(self, words: str, done: int = 0, total: int = 0) -> None:
        """Show `words`, and a bar where it is known which part of `total` is done.

        What comes too soon after the last one is passed over, if it is about the same.
        """
        if not self._shows:
            return
        now, subject = time.monotonic(), words[:_SUBJECT_WIDTH]
        if now >= self._next or subject != self._subject:
            self._next, self._subject = now + _PERIOD_SECONDS, subject
            width = shutil.get_terminal_size().columns
            self._put(line(words, done, total)[: width - 1])

    def clear(self) -> None:
        """Leave an empty line, for others to write to."""
        if self._shows:
            self._put("")

    def _put(self, text: str) -> None:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def line(words: str, done: int, total: int) -> str:
    """The words, after a bar if there is a total."""
    if not total:
        return words
    part = min(done / total, 1.0)
    bar = "#" * round(part * _BAR_WIDTH)
    return f"[{bar:<{_BAR_WIDTH}}] {part:4.0%} {words}"
