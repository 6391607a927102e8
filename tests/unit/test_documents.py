"""What the documents refer to is there: files, functions, options, targets of `make`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ovncp.cli import up
from ovncp.cli.main import VERBS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = {path: path.read_text() for path in sorted((ROOT / "src").rglob("*.py"))}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_modules_and_functions_exist(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    packages = "api|auth|cli|cluster|log|ovn|ovsdb|ops|server|wire"
    modules = re.findall(rf"`(?:src/ovncp/)?((?:{packages})/\w+\.py)`", text)
    assert [path for path in modules if not (ROOT / "src" / "ovncp" / path).exists()] == []
    methods = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)
    assert [method for method in methods if not is_method(*method)] == []


def is_method(owner: str, method: str) -> bool:
    classes = [text for text in SOURCES.values() if f"\nclass {owner}" in text]
    return any(re.search(rf"def {method}\b", text) for text in classes)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_make_has_the_targets(document: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:`|^ {4}|\$ )make ([a-z]+)", document.read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


def test_the_readme_has_every_verb_option_and_variable_of_the_command() -> None:
    text = (ROOT / "README.md").read_text()
    verbs = [verb for verb in VERBS if verb != "version"]
    assert [verb for verb in verbs if f"| `ovncp {verb}" not in text] == []
    assert [f"--{option.name}" for option in up.OPTIONS if f"--{option.name}" not in text] == []
    rows = dict(re.findall(r"\| `(OVNCP_\w+)` \| `?([^`|]+?)`? \|", text))
    defaults = {variable: up.DEFAULTS[option] for variable, option in up.ENVIRONMENT.items()}
    assert rows == defaults | {"OVNCP_DATA_DIR": "./var"}
