"""The screen: figures as lines of text that fit a terminal."""

from collections.abc import Iterable
from typing import Any

from ovncp.ops.top.figures import Json

_UNITS = ("B", "kB", "MB", "GB", "TB")
_FRACTIONS = ((1, "s"), (1e3, "ms"), (1e6, "us"))
_LATENCIES = ("whole", "turn", "execute", "store", "tell", "forward")
_LINES_OF_TABLE = 3
_RESULTS = ("committed", "unchanged", "failed", "forwarded")
_NONE = "-"


def lines(target: str, figures: Json, width: int, height: int) -> list[str]:
    """The screen, of at most `height` lines of at most `width` characters."""
    shown = [
        *_head(target, figures),
        "",
        *_columns(_left(figures), _right(figures), width),
        "",
        *_sessions(figures),
        *_databases(figures),
    ]
    shown += _talkers(figures, height - len(shown))
    return [line[:width].rstrip() for line in shown[:height]]


def _head(target: str, figures: Json) -> list[str]:
    server = figures["server"]
    build = "compiled" if server["compiled"] else "not compiled"
    return [
        f"ovncp {server['version']}, {build}, up {_duration(server['uptime'])}   {target}",
        f"CPU {server['cpu_percent']:.0f} %   memory {size(server['resident_bytes'])}"
        f"   files {server['open_fds']} of {server['max_fds']}",
    ]


def _columns(left: list[str], right: list[str], width: int) -> list[str]:
    # Two columns where there is room, the right one below the left one where there is not.
    if width < 72:
        return left + right
    left += [""] * (len(right) - len(left))
    right += [""] * (len(left) - len(right))
    return [f"{one:<31} {other}" for one, other in zip(left, right, strict=True)]


def _left(figures: Json) -> list[str]:
    rates, latency = figures["transactions"], figures["latency"]
    waiting = sum(database["waiting"] for database in figures["databases"].values())
    return [
        *(f"{name.upper():<11}{_count(rates[name]):>9}/s" for name in _RESULTS),
        f"{'WAITING':<11}{waiting:>9}",
        f"{'LATENCY':<11}{'p50':>9}{'p99':>9}",
        *(f"  {name:<9}{_pair(latency[name])}" for name in _LATENCIES),
    ]


def _right(figures: Json) -> list[str]:
    log, loop, clients = figures["log"], figures["loop"], figures["clients"]
    return [
        f"LOG      {_count(log['appends_per_second'])} writes/s of"
        f" {_count(log['entries_per_append'])}, p99 {seconds(log['append']['p99'])}",
        f"         {log['append_failures']} failed; compacted {log['compactions']} times, last"
        f" {seconds(log['last_compaction'])}",
        f"LOOP     late {seconds(loop['longest_stall_of_last_minute'])} in this minute,"
        f" {seconds(loop['longest_stall'])} ever",
        f"         {loop['stalls']} stalls; GC {_count(loop['gc_pauses_per_second'])}/s,"
        f" p99 {seconds(loop['gc_pause']['p99'])}",
        f"CLIENTS  {_count(clients['requests_per_second'])} requests/s,"
        f" {_count(clients['updates_per_second'])} updates/s",
        f"         {size(clients['received_bytes_per_second'])}/s in,"
        f" {size(clients['sent_bytes_per_second'])}/s out",
        f"         backlog {size(clients['backlog_bytes'])}, {clients['overflowed']} too slow",
        f"REUSED   {_share(clients['rows_reused'])} of rows,"
        f" {_share(clients['pieces_reused'])} of dumps,",
        f"         {_share(clients['updates_reused'])} of updates",
    ]


def _sessions(figures: Json) -> list[str]:
    by_number = sorted(figures["sessions"].items(), key=lambda item: -item[1])
    rows = [f"{number:>8}  {remote}" for remote, number in by_number]
    return ["SESSIONS  REMOTE", *_few(rows, "remotes")]


def _databases(figures: Json) -> list[str]:
    heading = (
        f"{'DATABASE':<20}{'ROWS':>9}{'MONITORS':>10}{'GROUPS':>8}{'CLAUSES':>9}{'HISTORY':>22}"
    )
    rows = [
        f"{name:<20}{database['rows']:>9}{database['monitors']:>10}{database['groups']:>8}"
        f"{database['clauses']:>9}{_history(database):>22}{_relay(figures, name)}"
        for name, database in figures["databases"].items()
        if name != "_Server"
    ]
    return [heading, *_few(rows, "databases")]


def _history(database: Json) -> str:
    kept, most = size(database["history_bytes"]), size(database["history_limit_bytes"])
    return f"{kept} of {most}"


def _relay(figures: Json, database: str) -> str:
    relay = figures["relays"].get(database)
    if relay is None:
        return ""
    return f"  lags {seconds(relay['lag'])}" if relay["connected"] else "  SOURCE LOST"


def _talkers(figures: Json, height: int) -> list[str]:
    heading = f"{'PEER':<34}{'SENT/s':>11}{'RECEIVED/s':>12}{'REQUESTS/s':>11}{'BACKLOG':>11}"
    rows = [
        f"{_peer(talker):<34}{size(talker['sent_bytes_per_second']):>11}"
        f"{size(talker['received_bytes_per_second']):>12}"
        f"{_count(talker['requests_per_second']):>11}{size(talker['backlog_bytes']):>11}"
        for talker in figures["talkers"]
    ]
    return [heading, *rows][: max(0, height)]


def _peer(talker: Json) -> str:
    name = f"{talker['identity']} {talker['peer']}" if talker["identity"] else talker["peer"]
    return name if len(name) < 34 else f"{name[:32]}~"


def _few(rows: Iterable[str], what: str) -> list[str]:
    shown = list(rows)
    if len(shown) <= _LINES_OF_TABLE:
        return shown
    left_out = len(shown) - _LINES_OF_TABLE + 1
    return [*shown[: _LINES_OF_TABLE - 1], f"{'':>8}  and {left_out} more {what}"]


def _pair(quantiles: Json) -> str:
    return f"{seconds(quantiles['p50']):>9}{seconds(quantiles['p99']):>9}"


def size(n_bytes: Any) -> str:
    """A number of bytes with a unit, in three or four characters and the unit."""
    value = float(n_bytes)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def seconds(value: float | None) -> str:
    """A time with a unit, or a dash."""
    if value is None:
        return _NONE
    factor, unit = next((pair for pair in _FRACTIONS if value * pair[0] >= 1), _FRACTIONS[-1])
    scaled = value * factor
    return f"{scaled:.0f} {unit}" if scaled >= 10 or not scaled else f"{scaled:.1f} {unit}"


def _count(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.0f} %"


def _duration(value: float | None) -> str:
    if value is None:
        return _NONE
    days, rest = divmod(int(value), 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
