"""The verbs of `ovncp db` against the loss of data: `backup`, `restore` and `recover`."""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ovncp.cli.agreement import is_agreed
from ovncp.cli.options import Argument, Option
from ovncp.cli.signals import ended_by_signal
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import OvsdbError

if TYPE_CHECKING:
    from ovncp.cli.db import Call
    from ovncp.ops.db.caller import Caller
    from ovncp.ops.db.report import Report

BACKUP_OPTIONS = (
    Option("every", Argument.REQUIRED, "", "DURATION", "go on, with one as often as this (1h)"),
    Option("keep", Argument.REQUIRED, "", "N|DURATION", "then delete older ones from the folder"),
)
RECOVER_OPTIONS = (
    Option("lost", Argument.REQUIRED, "", "URL", "where the lost log was, if not at URL"),
    Option("work", Argument.REQUIRED, "", "FOLDER", "for what is found (./recovery)"),
    Option("use", Argument.REQUIRED, "", "NUMBER", "take that of the list, not the newest"),
    Option("yes", short="y", help="do not ask"),
)
RESTORE_OPTIONS = (Option("replace", help="replace what is there; it is kept aside"),)


@dataclass(frozen=True)
class Ended:
    """What became of a scheduled job: how many backups were made, and how many failed."""

    n_made: int
    n_failed: int

    @property
    def status(self) -> int:
        """See `Report`."""
        return 1 if self.n_failed else 0

    def lines(self) -> Iterable[str]:
        """See `Report`."""
        yield f"{self.n_made} backups made, {self.n_failed} failed"

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return {"made": self.n_made, "failed": self.n_failed}


async def backup(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db backup SOURCE FOLDER|FILE`."""
    from ovncp.ops.db.backup import back_up
    from ovncp.ops.db.report import refusals
    from ovncp.ops.db.retention import Retention

    source, target = call.arguments
    keep_text, every = call.parsed.last("keep"), call.parsed.last("every")
    keep = None if keep_text is None else Retention.parse(keep_text)
    if every is None:
        return await back_up(source, target, keep, caller)
    seconds = _seconds(every)
    stopping = ended_by_signal()
    n_made = n_failed = 0
    while not stopping.is_set():
        next_time = asyncio.get_running_loop().time() + seconds
        try:
            with refusals():
                _show(await back_up(source, target, keep, caller), call.parsed.has("json"))
            n_made += 1
        except (Refusal, OvsdbError, OSError) as error:
            # The next one may succeed, and what is there stays.
            print(f"ovncp db backup: FAILED: {error}", file=sys.stderr, flush=True)
            n_failed += 1
        try:
            async with asyncio.timeout_at(next_time):
                await stopping.wait()
        except TimeoutError:
            continue
    return Ended(n_made, n_failed)


def _seconds(text: str) -> int:
    from ovncp.ops.db.moment import span_seconds

    seconds = span_seconds(text)
    if not seconds:
        raise Refusal(f"--every: {text!r} is no time, as 30m or 1h")
    return seconds


def _show(report: "Report", as_json: bool) -> None:
    """One line for each backup where programs read it, so that they can follow."""
    if as_json:
        print(orjson.dumps(report.to_json()).decode(), flush=True)
    else:
        print("\n".join(report.lines()), flush=True)


async def restore(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db restore BACKUP URL`."""
    from ovncp.ops.db.restore import restore as put_back

    path, url = call.arguments
    return await put_back(path, url, call.parsed.has("replace"), caller)


async def recover(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db recover URL SOURCE...`."""
    from ovncp.ops.db.recover import recover as make_again

    parsed = call.parsed
    url, *sources = call.arguments
    use = parsed.last("use")
    if use is not None and not (use.isascii() and use.isdigit()):
        raise Refusal(f"--use: {use!r} is no number of the list")
    number = None if use is None else int(use)
    work = parsed.last("work") or "recovery"

    def confirm(plan: Iterable[str]) -> bool:
        print("\n".join(plan), file=sys.stderr if parsed.has("json") else sys.stdout, flush=True)
        return parsed.has("yes") or is_agreed("Do it? [y/N] ", "y", "yes")

    return await make_again(url, sources, parsed.last("lost"), work, number, confirm, caller)
