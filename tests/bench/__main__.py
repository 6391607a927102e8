"""`python -m tests.bench`: the same load on ours and on Debian's C server, as a table of ratios."""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import replace

from tests.bench.cases import CASES, FULL, QUICK, as_json, compare, ratio

Figures = dict[str, dict[str, float]]
HEADINGS = ("", "unit", "C", "ovncp", "ratio", "goal", "")


def cells(name: str, figures: dict[str, float]) -> tuple[str, ...]:
    """One row of the table; a goal that is missed says so."""
    case, share = CASES[name], ratio(figures)
    own = figures["ovncp"]
    goals = [(case.goal, share, "of C's"), (case.own_goal, own, "")]
    wanted = [
        f"{'≤' if case.less_is_better else '≥'} {limit:,g} {words}".rstrip()
        for limit, _, words in goals
        if limit is not None
    ]
    met = all(case.meets(limit, figure) for limit, figure, _ in goals)
    verdict = ("met" if met else "MISSED") if wanted else ""
    shown = "" if share is None else f"{share:.2f}"
    return (case.title, case.unit, number(figures.get("c")), number(own), shown,
            ", ".join(wanted), verdict)  # fmt: skip


def number(figure: float | None) -> str:
    """Three digits at least, where there are so many."""
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if figure >= 100 or figure == 0 else f"{figure:.3g}"


def aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: list[tuple[str, ...]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join((head, "|---|---|---:|---:|---:|---:|---|", *body))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME",
                        help=f"one of {', '.join(CASES)}; may be given again")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a tenth of the load")
    parser.add_argument("--workers", type=int, default=0, metavar="N",
                        help="what our server is started with for fleets (default: 0)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print a table for the manual")
    return parser.parse_args()


def show_step(step: str) -> None:
    """Tells a person who waits what is being done."""
    if sys.stderr.isatty():
        print(f"\r{step:<30}\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    chosen = options()
    size = QUICK if chosen.quick else FULL
    result = compare(
        chosen.only or list(CASES),
        replace(size, scale=replace(size.scale, workers=chosen.workers)),
        chosen.rounds,
        show_step,
    )
    show_step("")
    rows = [HEADINGS, *(cells(name, figures) for name, figures in result.items())]
    if chosen.json:
        print(as_json(result))
    elif chosen.markdown:
        print(markdown(rows))
    else:
        print(f"Python {platform.python_version()}, {platform.machine()}; medians of "
              f"{chosen.rounds}; ratio is ovncp / C")  # fmt: skip
        print(aligned(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
