"""The lists in docs/platform.md are whole: every setting, and every figure, as a node has it."""

from __future__ import annotations

import re
from pathlib import Path

from ovncp.cli import config
from platform_figures import Figures

TEXT = (Path(__file__).parents[3] / "docs" / "platform.md").read_text()


def setting(each: config.Setting) -> str:
    """The row of a setting."""
    about = each.about
    names = [f"`{about['env']}`"] if about["env"] else []
    names += [f"`--{about['flag']}`"] if about["flag"] else []
    default = "" if about["secret"] else config.written(each.default)
    return f"| `{each.path}` | {', '.join(names)} | {default} | {about['help']} |"


def test_every_setting_is_there() -> None:
    rows = re.findall(r"^\| `[a-z_]+\.[a-z_.]+` \|.*\|$", TEXT, re.MULTILINE)
    wanted = [setting(each) for each in config.settings()]
    assert rows == wanted, "\n".join(wanted)


def figure(name: str, kind: str, labels: list[str], text: str) -> str:
    """The row of a figure."""
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"


def test_every_figure_is_there(node) -> None:
    rows = dict(re.findall(r"^(\| `(ovncp_\w+)` \|.*\|)$", TEXT, re.MULTILINE))
    documented = {name: row for row, name in rows.items()}
    shown = Figures.at(node.metrics_url)
    own = {name: family for name, family in shown.by_name().items() if name.startswith("ovncp_")}
    assert documented.keys() == own.keys()
    for name, family in own.items():
        labels = sorted({label for s in family.samples for label in s.labels} - {"le"})
        told = re.findall(r"`(\w+)`", documented[name].split("|")[3])
        assert documented[name] == figure(name, family.type, told, family.documentation)
        assert not family.samples or sorted(told) == labels, name
