"""The log's form and its configuration, beside the C server's."""

import errno
import logging
import os
import re
import socket
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.habits import Place, wait_until

from ovncp.server.log_pattern import INFO, WARN, Entry, compile_pattern
from ovncp.server.rate_limit import RateLimit
from ovncp.server.syslog import SpecError
from ovncp.server.vlog import Vlog, install

jsonrpc = logging.getLogger("ovncp.jsonrpc")


@pytest.fixture
def vlog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vlog]:
    """The process's log, without syslog; all levels are as at the start afterwards."""
    monkeypatch.setenv("OVS_SYSLOG_METHOD", "null")
    before = levels()
    vlog = install("ovsdb-server")
    yield vlog
    vlog.close()
    logging.getLogger().removeHandler(vlog)
    for name in levels():
        logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def levels() -> dict[str, int]:
    """Of our loggers, as other tests in this process are to find them."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("ovncp")]
    return {name: logging.getLogger(name).level for name in names}


def test_console_form(vlog: Vlog, capfd: pytest.CaptureFixture[str]) -> None:
    jsonrpc.info("hello %s\n", "world")
    jsonrpc.debug("unseen")
    logging.getLogger("ovncp.raft").warning("more")
    logging.getLogger("asyncio").error("from elsewhere")
    first, second, third = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\|00001\|jsonrpc\|INFO\|hello world", first
    )
    assert second.endswith("Z|00002|raft|WARN|more")
    assert third.endswith("Z|00003|asyncio|ERR|from elsewhere")


def test_file_form(vlog: Vlog, tmp_path: Path) -> None:
    vlog.set("console:off")
    vlog.open_file(str(tmp_path / "x.log"))
    jsonrpc.critical("bad")
    first, second = (tmp_path / "x.log").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    opened = f"opened log file {tmp_path}/x.log"
    assert re.fullmatch(rf"{stamp}\|00001\|vlog\|INFO\|{re.escape(opened)}", first)
    assert re.fullmatch(rf"{stamp}\|00002\|jsonrpc\|EMER\|bad", second)


def test_a_traceback_follows_its_message(vlog: Vlog, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        jsonrpc.exception("failed")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].endswith("|jsonrpc|ERR|failed")
    assert lines[1].startswith("Traceback") and lines[-1] == "KeyError: 'x'"


def test_rotation(vlog: Vlog, tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    vlog.open_file(str(log))
    jsonrpc.info("one")
    log.rename(tmp_path / "old.log")
    jsonrpc.info("two")
    vlog.reopen()
    jsonrpc.info("three")
    vlog.reopen()  # the same file: nothing to do
    vlog.close_file()
    jsonrpc.info("four")
    vlog.reopen()
    messages = [line.split("|", 4)[4] for line in log.read_text().splitlines()]
    opened = f"opened log file {log}"
    assert messages == [opened, "three", opened]
    assert (tmp_path / "old.log").read_text().splitlines()[-1].endswith("closing log file")


def test_a_log_file_that_cannot_be_opened(vlog: Vlog, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        vlog.hooks()["log-file"]("/nonexistent/x")
    assert end.value.code == 1
    text = "failed to open /nonexistent/x for logging: No such file or directory"
    assert capfd.readouterr().err.endswith(f"|vlog|WARN|{text}\n")
    with pytest.raises(OSError) as error:
        vlog.open_file("/nonexistent/x")
    assert error.value.errno == errno.ENOENT


SPECS = [
    "",
    "dbg",
    "off",
    "console info",
    "CONSOLE,WARN",
    "any:Syslog:err",
    "ANY:ANY",
    "jsonrpc",
    "jsonrpc:console",
    "file:dbg:raft",
    "JsonRPC:Emer",
    "ANY:console:info",
    "PATTERN:file:%m",
    "pattern:ANY:%A|%m",
    "PATTERN console a:b",
    "PATTERN:file",
    "PATTERN:file:",
    "FACILITY:local0",
    "facility:DAEMON",
    "FACILITY:local8",
    "PATTERN",
    "PATTERN:x",
    "info:dbg",
    "a:b",
    "=dbg",
    ":dbg",
]


def test_specs_do_what_they_do_in_c(vlog: Vlog, tmp_path: Path) -> None:
    """Each of SPECS in turn, on both servers: same answer, same levels, same patterns."""
    vlog.close_console()
    with Place(tmp_path) as place:
        assert place.c("--detach", "--pidfile=c.pid", "--unixctl=c.ctl").returncode == 0
        for spec in SPECS:
            c = place.appctl("c.ctl", "vlog/set", spec)
            try:
                vlog.set(spec)
                error = ""
            except SpecError as told:
                error = f"{told}\n"
            assert error == c.stderr.partition("ovs-appctl:")[0], spec
            listed = vlog.list_levels().splitlines()
            c_listed = place.appctl("c.ctl", "vlog/list").stdout.splitlines()
            assert [line for line in listed if line in c_listed] == c_listed, spec
            patterns = place.appctl("c.ctl", "vlog/list-pattern").stdout
            assert vlog.list_patterns() == patterns, spec


def test_verbosity_names_the_spec_in_its_error(vlog: Vlog) -> None:
    with pytest.raises(SpecError) as error:
        vlog.set_verbosity("foo")
    assert str(error.value) == 'processing "foo": no destination, level, or module "foo"'


def test_a_module_of_our_own_takes_the_general_level(vlog: Vlog) -> None:
    vlog.set("warn")
    assert not logging.getLogger("ovncp.our_own").isEnabledFor(logging.INFO)
    vlog.set("dbg")
    logging.getLogger("ovncp.our_own").debug("seen")
    assert re.search("^our_own +DBG +DBG +DBG$", vlog.list_levels(), re.MULTILINE)
    vlog.set("our_own:console:off")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("%10p|%-10p|%010N|%-5N|%3%|%q", "      INFO|INFO      |0000000042|42   |  %|q"),
        ("%A|%c|%5c|%m", "ovsdb-server|jsonrpc|jsonrpc|hi"),
        ("a%nb", "a\nb"),
        ("%t%T", "main"),
        ("%B", "133"),
        ("%D", "1970-01-02 03:04:05.678"),
        ("%D{%H:%M:%S.#}", "03:04:05.6"),
        ("%D{##}|%D{#####x#}", "67|67800x6"),
        ("%D{%Y}Z%", "1970Z"),
        ("", ""),
    ],
)
def test_patterns(pattern: str, expected: str) -> None:
    time = 27 * 3600 + 4 * 60 + 5.6789
    entry = Entry("ovsdb-server", "", "jsonrpc", INFO, "hi\n\n", 42, time, 128)
    assert compile_pattern(pattern)(entry) == expected


def test_subprogram() -> None:
    entry = Entry("ovsdb-server", "monitor", "jsonrpc", WARN, "hi", 1, 0.0, 128)
    assert compile_pattern("%c%T|%t")(entry) == "jsonrpc(monitor)|monitor"


def receiver(family: int, address: str | tuple[str, int]) -> socket.socket:
    result = socket.socket(family, socket.SOCK_DGRAM)
    result.bind(address)
    result.settimeout(60)
    return result


def test_syslog(vlog: Vlog, tmp_path: Path) -> None:
    """The messages are those that the C server sends, but for time and pid."""
    log = receiver(socket.AF_UNIX, str(tmp_path / "log"))
    target = receiver(socket.AF_INET, ("127.0.0.1", 0))
    with log, target:
        options = vlog.hooks()
        options["syslog-method"](f"unix:{tmp_path}/log")
        options["syslog-method"]("null")  # only the first counts
        options["syslog-target"](f"127.0.0.1:{target.getsockname()[1]}")
        deprecated = "--syslog-target flag is deprecated, use --syslog-method instead"
        assert log.recv(999).decode() == f"<28>ovs|00001|vlog|WARN|{deprecated}"
        stamp = r"<132>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
        form = (
            rf"{stamp} {socket.gethostname()} ovsdb-server {os.getpid()} vlog - \ufeff{deprecated}"
        )
        assert re.fullmatch(form, target.recv(999).decode())
        vlog.set("FACILITY:local3")
        jsonrpc.info("two\nlines")
        assert log.recv(999) == b"<157>ovs|00002|jsonrpc|INFO|two"
        assert log.recv(999) == b"<157>lines"


def test_syslog_outlives_its_daemon(vlog: Vlog, tmp_path: Path) -> None:
    vlog.hooks()["syslog-method"](f"unix:{tmp_path}/log")
    jsonrpc.info("nobody there")
    with receiver(socket.AF_UNIX, str(tmp_path / "log")) as log:
        jsonrpc.info("first")
        assert log.recv(999).endswith(b"|first")
    (tmp_path / "log").unlink()
    jsonrpc.info("gone")
    with receiver(socket.AF_UNIX, str(tmp_path / "log")) as log:
        jsonrpc.info("again")
        assert log.recv(999).endswith(b"|again")


@pytest.mark.parametrize("method", ["foo", "", "unix:", "udp:", "udp:x"])
def test_bad_syslog_methods(vlog: Vlog, method: str) -> None:
    with pytest.raises(SpecError):
        vlog.hooks()["syslog-method"](method)


def test_fatal(vlog: Vlog, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    vlog.open_file(str(tmp_path / "x.log"))
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        vlog.fatal("daemon_unix", "it is over")
    assert exit_.value.code == 1
    assert capfd.readouterr().err == "ovsdb-server: it is over\n"
    assert (tmp_path / "x.log").read_text().endswith("|00002|daemon_unix|EMER|it is over\n")


def test_rate_limit(vlog: Vlog, capfd: pytest.CaptureFixture[str]) -> None:
    limit = RateLimit(per_minute=60, burst=2)
    for n in range(5):
        limit.log(jsonrpc, logging.WARNING, "number %d", n)
    texts = [line.split("|", 4)[4] for line in capfd.readouterr().err.splitlines()]
    assert texts == ["number 0", "number 1"]

    def passes() -> str:
        limit.log(jsonrpc, logging.WARNING, "later")
        return capfd.readouterr().err

    told: list[str] = []
    wait_until(lambda: told.append(passes()) or told[-1])
    assert re.search(r"Dropped \d+ log messages in last \d+ seconds \(most recently, \d", told[-1])
    commands = {command.name: command.handler for command in vlog.commands()}
    commands["vlog/disable-rate-limit"](["jsonrpc"])
    assert (
        "jsonrpc           INFO       INFO       INFO    (rate limiting disabled)"
        in vlog.list_levels()
    )
    assert all(passes() for _ in range(20))
    commands["vlog/enable-rate-limit"]([])
    assert not all(passes() for _ in range(20))


def test_a_disabled_call_is_cheap(vlog: Vlog, tmp_path: Path) -> None:
    vlog.open_file(str(tmp_path / "x.log"))
    vlog.set("console:off")

    def seconds() -> float:
        return min(timeit.repeat(lambda: jsonrpc.info("x %s", 1), number=1000, repeat=20))

    enabled = seconds()
    vlog.set("off")
    assert seconds() < enabled / 10
