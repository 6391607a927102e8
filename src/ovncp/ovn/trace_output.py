"""What `ovn-trace --detailed --minimal` prints, as a structure (ovn-trace(8), "Output").

A section is headed by a line that is underlined: a pipeline of a datapath, a multicast group, or an
action that forks, as `ct_next`. Below it are the tables that the packet met, each with its actions.
What a section leads to stands after it, or deeper where there are several.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

_DETAILED, _MINIMAL = "# Detailed trace.", "# Minimal trace."
_INDENT = 4

_STRING = r'"(?:[^"\\]|\\.)*"'
_ARGUMENT = re.compile(rf"(\w+)=({_STRING})")
_PIPELINE = re.compile(rf"(ingress|egress|multicast)\(((?:\w+={_STRING}(?:, )?)*)\)")
_TABLE = re.compile(r"(\d+)\. (\S+) \((.*?)\): (.*), priority (\d+), uuid ([0-9a-f]+)")
_NO_FLOW = re.compile(r"(\d+)\. (\S+): (.*)")
_OUTPUT = re.compile(rf"output\(({_STRING})\)")


class Untraceable(Exception):
    """The packet cannot be traced; the text is what ovn-trace says of it."""


@dataclass
class Step:
    """One table that the packet met, and what was done there; all but `actions` may be unknown.

    `flow` is how the uuid of the logical flow begins.
    """

    table: int | None = None
    name: str | None = None
    source: str | None = None
    match: str | None = None
    priority: int | None = None
    flow: str | None = None
    actions: list[str] = field(default_factory=list)


@dataclass
class Section:
    """A pipeline, or what an action leads to; `depth` counts the forks that led there.

    `kind` is "ingress", "egress", "multicast" or "action"; `title` is the whole line. `datapath` is
    a uuid of the Northbound.
    """

    kind: str
    title: str
    depth: int
    datapath: str | None = None
    inport: str | None = None
    outport: str | None = None
    group: str | None = None
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Trace:
    """The packet as OpenFlow has it, its way, the ports that it comes out of, and what it became.

    `effect` has what modifies or puts out the packet, as text with braces.
    """

    flow: str
    sections: Sequence[Section]
    outputs: Sequence[str]
    effect: str


def parse(text: str) -> Trace:
    """What is printed. Raises Untraceable."""
    flow, newline, rest = text.partition("\n")
    if not flow.startswith("# ") or not newline:
        raise Untraceable(text.strip() or "ovn-trace says nothing")
    detailed, _, minimal = rest.partition(_MINIMAL + "\n")
    lines = detailed.removeprefix(_DETAILED + "\n").splitlines()
    outputs = [_unquoted(name) for name in _OUTPUT.findall(minimal)]
    return Trace(flow[2:], _sections(lines), list(dict.fromkeys(outputs)), minimal.rstrip())


def _sections(lines: Sequence[str]) -> list[Section]:
    sections: list[Section] = []
    datapaths: list[str | None] = []  # by the depth of the section that was the last one there
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        bare = line.strip()
        if not bare or _underlines(bare):
            continue
        if _underlines(below.strip()):
            depth = (len(line) - len(line.lstrip())) // _INDENT
            section = _section(bare, depth)
            del datapaths[depth + 1 :]
            if section.datapath is None and datapaths:  # an action goes on where it was done
                section.datapath = datapaths[-1]
            datapaths[depth:] = [section.datapath] * (depth + 1 - len(datapaths[:depth]))
            sections.append(section)
        elif sections:
            _add(sections[-1].steps, bare)
    return sections


def _underlines(text: str) -> bool:
    return len(text) > 1 and not text.strip("-")


def _section(title: str, depth: int) -> Section:
    known = _PIPELINE.fullmatch(title)
    if known is None:
        return Section("action", title, depth)
    given = {name: _unquoted(value) for name, value in _ARGUMENT.findall(known[2])}
    return Section(
        known[1],
        title,
        depth,
        given.get("dp"),
        given.get("inport"),
        given.get("outport"),
        given.get("mcgroup"),
    )


def _add(steps: list[Step], line: str) -> None:
    if known := _TABLE.fullmatch(line):
        table, name, source, match, priority, flow = known.groups()
        steps.append(Step(int(table), name, source, match, int(priority), flow))
    elif known := _NO_FLOW.fullmatch(line):
        steps.append(Step(int(known[1]), known[2], actions=[known[3]]))
    else:
        if not steps:
            steps.append(Step())
        steps[-1].actions.append(line)


def _unquoted(text: str) -> str:
    unquoted: Any = orjson.loads(text)
    return str(unquoted)
