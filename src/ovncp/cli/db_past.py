"""The verbs of `ovncp db` that look back: `log`, `diff` and `at`."""

from typing import TYPE_CHECKING

from ovncp.cli.options import Argument, Option
from ovncp.ops.refusal import Refusal

if TYPE_CHECKING:
    from ovncp.cli.db import Call
    from ovncp.ops.db.caller import Caller
    from ovncp.ops.db.moment import Moment
    from ovncp.ops.db.report import Report

LOG_OPTIONS = (
    Option("table", Argument.REQUIRED, "t", "TABLE", "only what changed rows of TABLE"),
    Option("row", Argument.REQUIRED, "r", "ROW", "only what changed the row of that uuid or name"),
    Option("since", Argument.REQUIRED, "", "T", "only from T on, an index or a time"),
    Option("until", Argument.REQUIRED, "", "T", "only up to T"),
    Option("max-count", Argument.REQUIRED, "n", "N", "only the newest N"),
    Option("patch", short="p", help="show the columns' old and new values"),
)
DIFF_OPTIONS = (
    Option("from", Argument.REQUIRED, "", "T", "the moment to compare with"),
    Option("to", Argument.REQUIRED, "", "T", "the later moment (the newest state)"),
)
AT_OPTIONS = (
    Option("output", Argument.REQUIRED, "o", "FILE", "write the state to a new database file"),
)


async def log(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db log URL`."""
    from ovncp.ops.db.past_log import Wanted
    from ovncp.ops.db.past_log import log as list_log

    parsed = call.parsed
    wanted = Wanted(
        parsed.last("table"),
        parsed.last("row"),
        _moment(parsed.last("since"), caller),
        _moment(parsed.last("until"), caller),
    )
    n_newest = _count(parsed.last("max-count"))
    return await list_log(call.arguments[0], wanted, n_newest, parsed.has("patch"), caller)


async def diff(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db diff URL --from T --to T`."""
    from ovncp.ops.db.past_diff import diff as show_diff

    start = _moment(call.parsed.last("from"), caller)
    if start is None:
        raise Refusal("--from is missing: the moment to compare with")
    end = _moment(call.parsed.last("to"), caller)
    return await show_diff(call.arguments[0], start, end, caller)


async def at(call: "Call", caller: "Caller") -> "Report":
    """`ovncp db at URL T`."""
    from ovncp.ops.db.past_dump import at as dump

    moment = _moment(call.arguments[1], caller)
    assert moment is not None, "there is a text"
    return await dump(call.arguments[0], moment, call.parsed.last("output"), caller)


def _moment(text: str | None, caller: "Caller") -> "Moment | None":
    from ovncp.ops.db.moment import Moment

    return None if text is None else Moment.parse(text, caller.now_msec())


def _count(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdigit() and int(text)):
        raise Refusal(f"--max-count: {text!r} is not a positive number")
    return None if text is None else int(text)
