"""Which of the two forms of the source runs: as it stands, or with its hot path as machine code."""

import ast
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import ovncp

PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from ovncp import which; print(which.NAME)"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a package of one module, and its compiled copy."""
    for place, name in (("src", "source"), ("build/compiled", "compiled")):
        package = tmp_path / place / "ovncp"
        package.mkdir(parents=True)
        (package / "which.py").write_text(f"NAME = {name!r}\n")
    source = Path(ovncp.__file__)
    shutil.copy(source, tmp_path / "src/ovncp/__init__.py")
    (tmp_path / "build/compiled/stamp").touch()
    return tmp_path


def which(checkout: Path, **environment: str) -> str:
    command = [sys.executable, "-B", "-c", PROGRAM, str(checkout / "src")]
    inherited = {name: text for name, text in os.environ.items() if name != "OVNCP_SOURCE"}
    ran = subprocess.run(
        command, env={**inherited, **environment}, text=True, capture_output=True, check=True
    )
    return ran.stdout.strip()


def touch(file: Path, seconds: float) -> None:
    """Let `file` have been changed `seconds` after the compiled copy was made."""
    stamp = file.stat().st_mtime + seconds
    os.utime(file, (stamp, stamp))


def test_the_copy_is_used(checkout: Path) -> None:
    touch(checkout / "build/compiled/stamp", 10)
    assert which(checkout) == "compiled"


def test_the_source_is_used_when_asked_for(checkout: Path) -> None:
    touch(checkout / "build/compiled/stamp", 10)
    assert which(checkout, OVNCP_SOURCE="1") == "source"


def test_the_source_is_used_once_it_has_changed(checkout: Path) -> None:
    touch(checkout / "build/compiled/stamp", 10)
    touch(checkout / "src/ovncp/which.py", 20)
    assert which(checkout) == "source"


def test_the_source_is_used_with_no_copy(checkout: Path) -> None:
    shutil.rmtree(checkout / "build")
    assert which(checkout) == "source"


def hot_modules() -> list[ModuleType]:
    return [
        import_module(name)
        for name, module in sorted(sys.modules.items())
        if name.startswith("ovncp.") and (module.__file__ or "").endswith(".so")
    ]


def test_no_compiled_class_has_weak_references() -> None:
    """They would be freed wrongly: mypyc adds them where a base class is not compiled."""
    import_module("ovncp.cli.ovsdb_server")
    assert bool(hot_modules()) is ovncp.IS_COMPILED
    wrong = [
        f"{cls.__module__}.{cls.__qualname__}"
        for module in hot_modules()
        for cls in vars(module).values()
        if isinstance(cls, type)
        and cls.__module__ == module.__name__
        and not issubclass(cls, BaseException)
        and not any("__weakref__" in vars(base) for base in cls.__mro__)
        and cls.__weakrefoffset__
    ]
    assert wrong == []


def hot_files() -> list[Path]:
    """What is compiled."""
    root = Path(ovncp.__file__).parents[2]
    _, _, rest = (root / "Makefile").read_text().partition("\nHOT = ")
    listed, _, _ = rest.replace("\\\n", " ").partition("\n")
    return [file for name in listed.split() for file in (root / "src").glob(name)]


def test_nothing_compiled_awaits_while_it_handles_an_error() -> None:
    """What does never lets go of the error, nor of what the frames that it came through hold."""
    files = hot_files()
    assert len(files) > 30
    found = [
        f"{file.name}:{node.lineno}"
        for file in files
        for handler in ast.walk(ast.parse(file.read_text()))
        if isinstance(handler, ast.ExceptHandler)
        for node in ast.walk(handler)
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert found == []
