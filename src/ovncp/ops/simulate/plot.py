"""A picture of a run: what happened second by second.

matplotlib draws it, which only this module needs; `pip install 'ovncp[plot]'` brings it.
"""

from collections.abc import Sequence
from typing import Any

from ovncp.ops.refusal import Refusal
from ovncp.ops.simulate.report import Report, Second

_SIZE_INCHES = (9.0, 6.0)
_DOTS_PER_INCH = 100

_PANELS: tuple[tuple[str, bool, tuple[tuple[str, str], ...]], ...] = (
    ("commit to last delivery, ms", True, (("p50_ms", "p50"), ("p99_ms", "p99"))),
    ("per second", True, (("writes", "writes"), ("deliveries", "deliveries"))),
    ("server, processors", False, (("server_cpu", ""),)),
    ("server, MB", False, (("server_bytes", ""),)),
)
"""Each panel's title, whether its scale is logarithmic, and the members of Second it shows."""


def require_matplotlib() -> Any:
    """The drawing module, drawing to files only. Raises Refusal where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise Refusal("--plot needs matplotlib: pip install 'ovncp[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(report: Report, path: str) -> None:
    """Write the picture of `report` to `path`. Raises Refusal and OSError."""
    pyplot = require_matplotlib()
    figure, axes = pyplot.subplots(2, 2, figsize=_SIZE_INCHES, layout="constrained")
    for axis, (title, is_log, members) in zip(axes.flat, _PANELS, strict=True):
        _draw_panel(axis, report.seconds, title, is_log, members)
    hypervisors = f"{report.plan['hypervisors']:,} hypervisors"
    figure.suptitle(f"{hypervisors}, {report.run.writes_per_second:,.0f} writes/s")
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)


def _draw_panel(
    axis: Any,
    seconds: Sequence[Second],
    title: str,
    is_log: bool,
    members: tuple[tuple[str, str], ...],
) -> None:
    times = [second.at for second in seconds]
    for member, label in members:
        values = [_value(second, member) for second in seconds]
        axis.plot(times, values, label=label or None)
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("s")
    axis.grid(alpha=0.3)
    if is_log and any(_value(second, members[0][0]) > 0 for second in seconds):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    if len(members) > 1:
        axis.legend()


def _value(second: Second, member: str) -> float:
    value = getattr(second, member)
    if value is None:
        return float("nan")
    return float(value) / 1e6 if member == "server_bytes" else float(value)
