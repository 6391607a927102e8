"""The topology as other programs take it: Graphviz, Mermaid, and Cytoscape's JSON.

https://graphviz.org/doc/info/lang.html, https://mermaid.js.org/syntax/flowchart.html,
https://js.cytoscape.org/#notation/elements-json
"""

from collections.abc import Iterator
from typing import Any

import orjson

from ovncp.ovn.topology import Answer, Object

_SHAPES = {"network": "cloud", "chassis": "box3d", "router": "ellipse", "switch": "box"}
_BRACKETS = {
    "network": ("{{", "}}"),
    "chassis": ("[[", "]]"),
    "router": ("([", "])"),
    "switch": ("[", "]"),
}


def graphviz(answer: Answer) -> str:
    """An undirected graph in the language of `dot`."""
    lines = ["graph topology {"]
    for node in answer.nodes:
        attributes = f"label={_quoted(_label(node))} shape={_SHAPES[node['kind']]}"
        lines.append(f"  {_quoted(node['id'])} [{attributes}];")
    for link in answer.links:
        ends = f"{_quoted(link['from'])} -- {_quoted(link['to'])}"
        lines.append(f"  {ends} [label={_quoted(_words(link))}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _label(node: Object) -> str:
    return str(node["name"] or node["id"])


def _words(link: Object) -> str:
    if link["kind"] == "gateway":
        return f"priority {link['priority']}" if "priority" in link else "gateway"
    return " ".join(link["ports"])


def mermaid(answer: Answer) -> str:
    """A flowchart; its nodes are numbered, since an id there can hold few characters."""
    numbers = {node["id"]: f"n{number}" for number, node in enumerate(answer.nodes)}
    lines = ["flowchart LR"]
    for node in answer.nodes:
        opening, closing = _BRACKETS[node["kind"]]
        lines.append(f'  {numbers[node["id"]]}{opening}"{_entities(_label(node))}"{closing}')
    for link in answer.links:
        # Of a later page a node may be missing that an earlier one has.
        if link["from"] in numbers and link["to"] in numbers:
            label = _entities(_words(link))
            between = f'---|"{label}"|' if label else "---"
            lines.append(f"  {numbers[link['from']]} {between} {numbers[link['to']]}")
    return "\n".join([*lines, ""])


def _entities(text: str) -> str:
    """Text without what would end it, as Mermaid's own codes."""
    plain = set(" -_.:/()")
    return "".join(c if c.isalnum() or c in plain else f"#{ord(c)};" for c in text)


def cytoscape(answer: Answer) -> bytes:
    """An object with `elements`."""
    nodes = [{"data": node} for node in answer.nodes]
    return orjson.dumps({"elements": {"nodes": nodes, "edges": list(_edges(answer))}})


def _edges(answer: Answer) -> Iterator[Any]:
    for number, link in enumerate(answer.links):
        others = {name: value for name, value in link.items() if name not in ("from", "to")}
        ends = {"id": f"link:{number}", "source": link["from"], "target": link["to"]}
        yield {"data": {**ends, **others}}
