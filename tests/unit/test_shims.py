"""Shims start our server and tool under the C programs' names, whatever surrounds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ovncp
from ovncp.cli import shims
from processor_time import least, least_of_an_interpreter

SCHEMA = '{"name": "Small", "version": "1.2.3", "tables": {}}'


def written(directory: Path) -> Path:
    shims.write(directory, sys.executable)
    return directory


def version_of(shim: Path, **settings: object) -> str:
    done = subprocess.run([shim, "--version"], capture_output=True, text=True, **settings)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, ""), done
    return str(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Shims, and a database."""
    written(tmp_path / "bin")
    (tmp_path / "schema").write_text(SCHEMA)
    subprocess.run([tmp_path / "bin" / "ovsdb-tool", "create", "db", "schema"], cwd=tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", shims.SHIMS)
def test_each_has_the_name_and_is_ours(tmp_path: Path, name: str) -> None:
    text = version_of(written(tmp_path) / name)
    assert text.endswith(f"\novncp {ovncp.__version__}\n")


def test_what_starts_them_by_name_finds_them(place: Path) -> None:
    env = os.environ | {"PATH": f"{place}/bin:{os.environ['PATH']}"}
    done = subprocess.run("ovsdb-tool db-version db", shell=True, cwd=place, env=env, text=True,
                          capture_output=True)  # fmt: skip
    assert done.stdout == "1.2.3\n"


def test_neither_the_environment_nor_the_directory_has_a_say(tmp_path: Path) -> None:
    shim = written(tmp_path / "bin") / "ovsdb-server"
    trap = tmp_path / "trap"
    (trap / "ovncp").mkdir(parents=True)
    for module in ("orjson", "sys", "logging", "ovncp/__init__", "sitecustomize"):
        (trap / f"{module}.py").write_text("raise SystemExit('trapped')")
    hostile = {"PYTHONPATH": str(trap), "PYTHONHOME": str(trap), "PYTHONSTARTUP": "x"}
    assert version_of(shim, cwd=trap, env=hostile) == version_of(shim)
    assert version_of(shim, cwd="/", env={}) == version_of(shim)


def test_the_process_has_the_programs_name(place: Path) -> None:
    """Start scripts take a pidfile for stale when the process is named otherwise."""
    assert name_of_running(place / "bin" / "ovsdb-server", place) == "ovsdb-server"


def test_an_interpreter_with_an_odd_path(place: Path) -> None:
    odd = place / "it's a path " / ("x" * 100)
    odd.mkdir(parents=True)
    prefix = Path(sys.executable).parents[1]
    shutil.copy(prefix / "pyvenv.cfg", odd)
    (odd / "bin").mkdir()
    python = odd / "bin" / "python3"
    python.symlink_to(Path(sys.executable).resolve())
    shims.write(place / "bin", str(python))
    assert version_of(place / "bin" / "ovsdb-server").startswith("ovsdb-server ")
    assert name_of_running(place / "bin" / "ovsdb-server", place) == "ovsdb-server"


def name_of_running(shim: Path, place: Path) -> str:
    with start(shim, place) as process:
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        process.terminate()
    return name


def start(shim: Path, place: Path) -> subprocess.Popen[bytes]:
    """Returns when the server listens."""
    options = [f"--remote=punix:{place}/sock", "--unixctl=none", "-vconsole:off", "db"]
    process = subprocess.Popen([shim, *options], cwd=place)
    deadline = time.monotonic() + 60
    while not (place / "sock").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.001)
    return process


def test_a_server_listens_soon(place: Path) -> None:
    """After little more work than that of starting an interpreter."""

    def start_and_end() -> None:
        with start(place / "bin" / "ovsdb-server", place) as process:
            process.terminate()

    assert least(start_and_end) < 4 * least_of_an_interpreter()


def test_the_command_says_how_to_use_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shims.main(["to here"]) == 0
    out, _ = capsys.readouterr()
    export = out.splitlines()[-1].strip()
    which = subprocess.run(
        ["sh", "-c", f"{export}; command -v ovsdb-server"], capture_output=True, text=True
    )
    assert which.stdout == f"{tmp_path}/to here/ovsdb-server\n"
    assert sorted(path.name for path in (tmp_path / "to here").iterdir()) == sorted(shims.SHIMS)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "name one directory to write into"),
        (["a", "b"], "name one directory to write into"),
        (["--bogus"], "unrecognized option '--bogus'"),
        (["/proc/nowhere"], "cannot write into /proc/nowhere: "),
    ],
)
def test_mistakes(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shims.main(argv) == 1
    _, err = capsys.readouterr()
    assert err.startswith(f"ovncp shims: {complaint}")
    assert err.count("\n") == 1
