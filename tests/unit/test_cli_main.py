"""The command `ovncp`: its verbs, and that it is as light as a server's start-up needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import ovncp
from ovncp.cli.main import VERBS, main

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_one_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == (
        ovncp.__version__
    )


def test_the_version_has_an_entry_in_the_changelog() -> None:
    assert f"## [{ovncp.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"ovncp {ovncp.__version__}\n"


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_help_names_every_verb(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    out, err = capsys.readouterr()
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert max(map(len, out.splitlines())) <= 80
    assert err == ""


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["--frobnicate"]])
def test_what_is_no_verb_is_answered_with_those_that_are(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(word in err for word in [*argv, *VERBS])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_leads_somewhere(verb: str) -> None:
    assert callable(import_module(VERBS[verb][0]).main)


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ovncp", "--version"], capture_output=True)
    assert done.stdout.decode() == f"ovncp {ovncp.__version__}\n"


def test_the_table_of_verbs_imports_none_of_them() -> None:
    code = "import sys, ovncp.cli.main; print(*(m for m in sys.modules if m.startswith('ovncp')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["ovncp", "ovncp.cli", "ovncp.cli.main"]


def test_what_works_on_databases_imports_no_server() -> None:
    code = "import sys, ovncp.cli.db, ovncp.cli.simulate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ovncp.server.runtime", "ovncp.cli.ovsdb_server"} & set(done.stdout.split())
