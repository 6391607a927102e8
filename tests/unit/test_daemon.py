"""Daemon habits on real processes, beside the C server and the real ovs-appctl."""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.habits import OURS, Place, is_alive, wait_until

from ovncp.server import dirs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A run directory."""
    with Place(tmp_path) as place:
        yield place


def status(pid: int, field: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


def pid_if_any(place: Place) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return place.pid()
    return None


def test_detach_returns_when_the_daemon_serves(place: Place) -> None:
    started = time.monotonic()
    done = place.ours("--detach", "--pidfile", "--log-file", "slow")
    assert time.monotonic() - started >= 0.5
    assert done.returncode == 0
    assert "|vlog|INFO|opened log file" in done.stderr
    assert "|ovsdb_server|" not in done.stderr  # logged after detaching: in the file only
    pid = place.pid()
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)} == {"/dev/null"}
    assert place.appctl("ovsdb-server", "version").stdout == "ovsdb-server (Open vSwitch) 3.1.0\n"
    wait_until(lambda: "|00002|ovsdb_server|INFO|" in place.read("ovsdb-server.log"))


# A daemon that takes its time to leave, which is over when those who started it go on.
SLOW_TO_LEAVE = """
import os, time
chdir = os.chdir
os.chdir = lambda path: (time.sleep(0.5), chdir(path))
"""


@pytest.mark.parametrize("extra", [[], ["--monitor"]])
def test_who_started_it_finds_that_it_has_left(place: Place, extra: list[str]) -> None:
    python, option, code = OURS
    command = [python, option, SLOW_TO_LEAVE + code, "--detach", "--pidfile", *extra]
    # With nothing of ours open in it, whose end one would wait for, too.
    subprocess.run(command, env=place.env, cwd=place.path, stderr=subprocess.DEVNULL, check=True)
    pid = place.pid()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)} == {"/dev/null"}


def test_no_chdir(place: Place) -> None:
    assert place.ours("--detach", "--pidfile", "--no-chdir").returncode == 0
    assert os.readlink(f"/proc/{place.pid()}/cwd") == str(place.path)


@pytest.mark.parametrize("extra", [[], ["--monitor"]])
def test_a_failed_start_passes_through(place: Place, extra: list[str]) -> None:
    done = place.ours("--detach", "--pidfile", *extra, "bad")
    assert (done.returncode, done.stderr) == (3, "it went wrong\n")
    assert list(place.path.glob("*.pid*")) == []


def test_pidfile_is_locked_for_life_and_removed(place: Place) -> None:
    place.ours("--detach", "--pidfile")
    pid = place.pid()
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = (place.path / "ovsdb-server.pid").stat().st_ino
    held = [row for row in locks if row[5].endswith(f":{inode}")]
    assert [(row[1], row[3], row[4]) for row in held] == [("POSIX", "WRITE", str(pid))]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))
    assert list(place.path.iterdir()) == []


@pytest.mark.parametrize("other", ["ours", "c"])
def test_already_running(place: Place, other: str) -> None:
    """Ours and the C server keep each other out, in the same words."""
    getattr(place, other)("--detach", "--pidfile", "--unixctl=none")
    pid = place.pid()
    for again in (place.ours, place.c):
        done = again("--detach", "--pidfile", "--unixctl=none", "--log-file=l")
        text = f"{place.path}/ovsdb-server.pid: already running as pid {pid}, aborting"
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"ovsdb-server: {text}"
        last = place.read("l").splitlines()[-1]
        assert last.endswith(f"|00002|daemon_unix|EMER|{text}")
        (place.path / "l").unlink()
    assert place.pid() == pid and is_alive(pid)


def test_stale_pidfile_is_replaced(place: Place) -> None:
    (place.path / "ovsdb-server.pid").write_text("1\n")
    assert place.ours("--detach", "--pidfile").returncode == 0
    assert place.pid() != 1
    assert place.appctl("ovsdb-server", "version").returncode == 0


def test_overwrite_pidfile(place: Place) -> None:
    place.ours("--detach", "--pidfile", "--unixctl=none")
    first = place.pid()
    assert place.ours("--detach", "--pidfile", "--overwrite-pidfile").returncode == 0
    assert place.pid() != first
    assert place.appctl("ovsdb-server", "version").returncode == 0


def test_pidfile_that_cannot_be_made(place: Place) -> None:
    ours, c = (run("--pidfile=/nonexistent/x") for run in (place.ours, place.c))
    assert (ours.returncode, ours.stderr) == (c.returncode, c.stderr) == (1, c.stderr)


def test_foreground_dies_by_the_signal(place: Place) -> None:
    with subprocess.Popen(
        [*OURS, "--pidfile", "slow"], env=place.env, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until((place.path / "ovsdb-server.pid").exists)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGHUP
        assert errors.endswith("|fatal_signal|WARN|terminating with signal 1 (Hangup)\n")
    assert list(place.path.glob("*.pid*")) == []


def test_monitor_restarts_after_a_crash(place: Place) -> None:
    log = f"--log-file={place.path}/x.log"
    assert place.ours("--detach", "--pidfile", "--monitor", log).returncode == 0
    first = place.pid()
    monitor = int(status(first, "PPid")[0])
    place.appctl("ovsdb-server", "crash")
    wait_until(lambda: pid_if_any(place) not in (None, first))
    second = place.pid()
    wait_until(lambda: place.appctl("ovsdb-server", "version").returncode == 0)
    text = place.read("x.log")
    died = f"1 crashes: pid {first} died, killed (Segmentation fault)"
    assert f"|daemon_unix(monitor)|ERR|{died}" in text
    assert is_alive(monitor)
    os.kill(second, signal.SIGKILL)  # not a crash: the monitor leaves too
    wait_until(lambda: not is_alive(monitor))
    assert f"|daemon_unix(monitor)|INFO|pid {second} died, killed (Killed), exiting" in place.read(
        "x.log"
    )


def test_monitor_leaves_after_an_orderly_exit(place: Place) -> None:
    assert place.ours("--detach", "--pidfile", "--monitor").returncode == 0
    monitor = int(status(place.pid(), "PPid")[0])
    assert place.appctl("ovsdb-server", "exit").returncode == 0
    wait_until(lambda: not is_alive(monitor))
    assert list(place.path.glob("*.pid*")) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_user(place: Place) -> None:
    for directory in (place.path, *place.path.parents):
        if directory != Path("/tmp") and directory != Path("/"):
            directory.chmod(0o777)
    log = f"--log-file={place.path}/x.log"
    done = place.ours(log, "--detach", "--pidfile", "--user=nobody")
    assert done.returncode == 0, done.stderr
    nobody = pwd.getpwnam("nobody")
    assert status(place.pid(), "Uid") == [str(nobody.pw_uid)] * 4
    assert status(place.pid(), "Gid") == [str(nobody.pw_gid)] * 4
    assert (place.path / "x.log").stat().st_uid == nobody.pw_uid


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("user", ["nonesuch", ":nonesuch", "root:nonesuch", "root:nogroup"])
def test_bad_users_are_told_as_by_the_c_server(place: Place, user: str) -> None:
    ours, c = (run(f"--user={user}") for run in (place.ours, place.c))
    assert (ours.returncode, ours.stderr) == (c.returncode, c.stderr)


def test_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUN", "LOG", "DB", "SYSCONF"):
        monkeypatch.delenv(f"OVS_{name}DIR", raising=False)
    assert (dirs.rundir(), dirs.logdir()) == ("/var/run/openvswitch", "/var/log/openvswitch")
    assert (dirs.sysconfdir(), dirs.dbdir()) == ("/etc", "/etc/openvswitch")
    monkeypatch.setenv("OVS_SYSCONFDIR", "/s")
    assert dirs.dbdir() == "/s/openvswitch"
    monkeypatch.setenv("OVS_DBDIR", "/d")
    assert dirs.dbdir() == "/d"
    assert dirs.abs_file_name("/d", "x") == "/d/x"
    assert dirs.abs_file_name("/d", "/x") == "/x"
    assert dirs.abs_file_name(None, "x") == f"{os.getcwd()}/x"
