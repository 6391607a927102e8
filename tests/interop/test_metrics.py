"""The metrics of a real server, read by Prometheus' own parser, and `ovncp top` in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines import free_port
from servers import COMMANDS, Server, relay_of

ROOT = Path(__file__).parents[2]
NB_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
OVNCP = COMMANDS["ovncp"][0]
SWITCH = {"op": "insert", "table": "Logical_Switch", "row": {"name": "web"}}
MONITOR = ["OVN_Northbound", "m", {"Logical_Switch": [{"where": [["name", "==", "web"]]}]}]
Metrics = dict[str, Any]


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def northbound(*options: str) -> Iterator[tuple[Server, str]]:
    """A server with metrics, and their address."""
    given = ["--metrics=127.0.0.1:0", *options]
    with Server("ovncp", [("nb", NB_SCHEMA)], options=given, tcp=True) as server:
        yield server, wait_for(lambda: re.findall(r"http://\S+", server.log))[0]


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text: str = answer.read().decode()
        return text


def families(text: str) -> Metrics:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(metrics: Metrics, name: str, sample: str | None = None, **labels: str) -> float:
    """The sum of the samples of a family with these labels."""
    wanted = sample or name
    return sum(
        found.value
        for found in metrics[name].samples
        if found.name == wanted and labels.items() <= found.labels.items()
    )


def test_the_figures_are_those_of_what_happened() -> None:
    with northbound() as (server, url):
        client, watcher = server.client(), server.client(tcp=True)
        watcher.request("monitor_cond", MONITOR)
        for _ in range(10):
            client.transact("OVN_Northbound", SWITCH)
        client.transact("OVN_Northbound", {"op": "select", "table": "ACL", "where": []})
        client.transact("OVN_Northbound", {"op": "abort"})
        wait = {"op": "wait", "table": "ACL", "where": [], "until": "==", "columns": ["name"]}
        client.start("transact", ["OVN_Northbound", {**wait, "rows": [{"name": "x"}]}], "waits")
        client.notify("cancel", ["waits"])
        client.reply("waits")
        server.appctl("ovsdb-server/compact")
        metrics = families(scrape(url))
        results = {
            sample.labels["result"]: sample.value
            for sample in metrics["ovncp_transactions"].samples
        }
        assert results["committed"] >= 10 and results["failed"] == 1 and results["canceled"] == 1
        assert results["unchanged"] >= 1
        over = results["committed"] + results["failed"] + results["unchanged"]
        assert (
            value(metrics, "ovncp_transaction_seconds", "ovncp_transaction_seconds_count") == over
        )
        assert value(metrics, "ovncp_transaction_waits", "ovncp_transaction_waits_total") == 1
        batches = value(metrics, "ovncp_log_appends", "ovncp_log_appends_total")
        entries = value(metrics, "ovncp_log_batch_entries", "ovncp_log_batch_entries_sum")
        assert 0 < batches <= entries == results["committed"]
        assert value(metrics, "ovncp_rows", database="OVN_Northbound", table="Logical_Switch") == 10
        assert value(metrics, "ovncp_monitors", database="OVN_Northbound") == 1
        assert value(metrics, "ovncp_monitor_clauses", database="OVN_Northbound") == 1
        assert value(metrics, "ovncp_history_entries", database="OVN_Northbound") >= 10
        assert value(metrics, "ovncp_sessions", remote="ptcp:0:127.0.0.1") == 1
        assert value(metrics, "ovncp_sessions", remote=f"punix:{server.socket_path}") == 1
        assert value(metrics, "ovncp_compaction_seconds", "ovncp_compaction_seconds_count") == 1
        now = value(metrics, "ovncp_last_compaction_timestamp_seconds", database="OVN_Northbound")
        assert time.time() - 600 < now < time.time() + 1
        updates = {"sample": "ovncp_encodings_total", "what": "update"}
        assert value(metrics, "ovncp_encodings", **updates) == 10  # type: ignore[arg-type]
        requests = value(metrics, "ovncp_requests", "ovncp_requests_total")
        assert requests == 14  # with the one that waits, and the monitor
        assert value(metrics, "process_resident_memory_bytes") > 10e6
        started = value(metrics, "process_start_time_seconds")
        assert time.time() - 600 < started < time.time() + 1


def test_the_sessions_with_most_traffic_are_named() -> None:
    with northbound() as (server, url):
        scrape(url)
        clients = [server.client(tcp=True) for _ in range(30)]
        for number, client in enumerate(clients):
            client.request("echo", ["x" * 1000 * (number + 1)])
        time.sleep(1.1)  # rates are over a second at least
        sent = families(scrape(url))["ovncp_session_sent_bytes_per_second"].samples
        names = {f"tcp:127.0.0.1:{client.socket.getsockname()[1]}" for client in clients[20:]}
        assert names <= {sample.labels["peer"] for sample in sent} and len(sent) <= 40
        total = families(scrape(url))["ovncp_sent_bytes"].samples[0].value
        for client in clients:
            client.close()
        wait_for(lambda: "sessions" not in server.appctl("memory/show"))
        assert families(scrape(url))["ovncp_sent_bytes"].samples[0].value >= total > 30 * 15_000


def check_text(text: str) -> None:
    """Every family is described once, before its samples; no sample comes twice."""
    described: list[str] = []
    samples: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            described.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] == described[-1]
        else:
            name = line.rpartition(" ")[0]
            assert re.match(described[-1] + r"(_bucket|_sum|_count)?(\{|$)", name), name
            assert name not in samples, name
            samples.add(name)
    assert len(described) == len(set(described))


def test_the_text_is_as_prometheus_wants_it() -> None:
    with northbound() as (server, url):
        server.client(tcp=True).transact("OVN_Northbound", SWITCH)
        text = scrape(url)
        shown = server.appctl("metrics/show")
    check_text(text)
    found = families(text)
    assert found.keys() == families(shown).keys()
    for family in found.values():
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        if family.type == "histogram":
            check_histogram(family)


def check_histogram(family: Any) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            labels = {name: text for name, text in sample.labels.items() if name != "le"}
            series.setdefault(str(labels), []).append((float(sample.labels["le"]), sample.value))
    counts = {
        str(sample.labels): sample.value
        for sample in family.samples
        if sample.name.endswith("_count")
    }
    assert series.keys() == counts.keys()
    for labels, buckets in series.items():
        assert buckets == sorted(buckets) and buckets[-1] == (float("inf"), counts[labels])
        assert [n for _, n in buckets] == sorted(n for _, n in buckets)


def test_the_document_has_exactly_these_metrics() -> None:
    with northbound() as (_, url):
        text = scrape(url)
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    kinds = dict(re.findall(r"^# TYPE (\S+) (.*)$", text, re.MULTILINE))
    document = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", document, re.MULTILINE)
    assert [(name, kind, text) for name, kind, _, text in rows] == [
        (name, kinds[name], text) for name, text in helps.items()
    ]
    labels = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in rows}
    for family in families(text).values():
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            assert sample.labels.keys() - {"le"} == labels[name if name in labels else family.name]


def test_an_address_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, reason in (
            (f"127.0.0.1:{port}", "Address already in use"),
            ("192.0.2.1:9476", "Cannot assign requested address"),
            ("9476", "HOST:PORT is expected"),
        ):
            with pytest.raises(RuntimeError) as refusal:
                Server("ovncp", [("nb", NB_SCHEMA)], options=[f"--metrics={address}"])
            (line,) = [text for text in str(refusal.value).splitlines() if "ovsdb-server: " in text]
            assert line == f"ovsdb-server: --metrics={address}: {reason}"
            assert "Traceback" not in str(refusal.value)


def test_a_server_that_is_not_asked_imports_nothing_for_it() -> None:
    program = "import sys, ovncp.cli.ovsdb_server; print('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", program]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "ovncp.server.stall" in modules
    assert {"ovncp.server.metrics", "ovncp.server.metrics_endpoint"}.isdisjoint(modules)


def test_a_stall_is_seen_by_the_runtime_command() -> None:
    with Server("ovncp", [("nb", NB_SCHEMA)]) as server:
        client = server.client(timeout=30)
        client.sync()
        server.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        time.sleep(0.4)
        server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        client.sync()
        shown = server.appctl("stall/show")
        longest = re.findall(r"longest stall of the last minute: ([\d.]+) ms", shown)
        assert float(longest[0]) > 300
        assert int(server.appctl("coverage/read-counter", "loop_stall")) >= 1
        commands = server.appctl("list-commands")
        assert "  stall/show" in commands and "  metrics/show" in commands


def test_workers_are_told_apart() -> None:
    with northbound("--workers=2") as (server, url):
        clients = [server.client(tcp=True) for _ in range(4)]
        for client in clients:
            client.request("monitor_cond", MONITOR)
            client.transact("OVN_Northbound", SWITCH)
        text = scrape(url)
        check_text(text)
        metrics = families(text)
        sessions = [
            sample.value
            for sample in metrics["ovncp_sessions"].samples
            if sample.labels["remote"] == "ptcp:0:127.0.0.1" and "worker" in sample.labels
        ]
        assert sum(sessions) == 4 and len(sessions) == 2
        results = {"sample": "ovncp_transactions_total", "result": "forwarded"}
        assert value(metrics, "ovncp_transactions", **results) == 4  # type: ignore[arg-type]
        assert value(metrics, "ovncp_monitors", database="OVN_Northbound", worker="1") == 2
        shown = server.appctl("stall/show")
        assert shown.count("longest stall so far") == 3 and "worker 2:\n" in shown
        figures = json.loads(top("--json", str(server.control)))
        assert figures["sessions"]["ptcp:0:127.0.0.1"] == 4
        database = figures["databases"]["OVN_Northbound"]
        assert (database["monitors"], database["history_entries"]) == (6, 4)
        assert "Logical_Switch" in text and database["rows"] == 4


def test_a_relay_shows_how_far_it_is_behind() -> None:
    with (
        northbound() as (source, _),
        relay_of("ovncp", source, databases=["OVN_Northbound"]) as relay,
    ):
        client = relay.client()
        client.transact("OVN_Northbound", SWITCH)
        first = families(relay.appctl("metrics/show"))
        assert value(first, "ovncp_relay_connected", database="OVN_Northbound") == 1
        assert first["ovncp_relay_lag_seconds"].samples == []
        time.sleep(0.2)
        second = families(relay.appctl("metrics/show"))
        assert 0 < value(second, "ovncp_relay_lag_seconds", source=source.remote) < 30
        # A source that does not answer is one that we are ever further behind.
        source.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            relay.appctl("metrics/show")
            time.sleep(1)
            third = families(relay.appctl("metrics/show"))
            assert value(third, "ovncp_relay_lag_seconds") > 0.9
            relays = json.loads(top("--json", str(relay.control)))["relays"]
        finally:
            source.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        assert relays["OVN_Northbound"]["connected"] and relays["OVN_Northbound"]["lag"] > 1.9
        source.stop()
        wait_for(lambda: "ovncp_relay_lag_seconds{" not in relay.appctl("metrics/show"))


# ovncp top


def top(*args: str, status: int = 0) -> str:
    done = subprocess.run(
        [OVNCP, "top", *args], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


def test_one_screen_and_the_figures_for_programs() -> None:
    with northbound() as (server, url):
        client = server.client()
        client.request("monitor_cond", MONITOR)
        address = url.split("/")[2]
        for target in (url, address, str(server.control)):
            screen = top("--once", target)
            assert screen.startswith("ovncp 0.") and "\x1b" not in screen
            assert max(map(len, screen.splitlines())) <= 80 and screen.count("\n") <= 24
        figures = json.loads(top("--json", str(server.control)))
        assert figures["sessions"][f"punix:{server.socket_path}"] == 1
        assert figures["databases"]["OVN_Northbound"]["monitors"] == 1
        assert figures["latency"]["whole"].keys() == {"p50", "p99"}


def test_rates_are_those_of_the_time_between() -> None:
    with northbound() as (server, _):
        # On a machine that stands still for a while there may be a second without a write.
        n_written, figures = wait_for(lambda: written_meanwhile(server))
    rates = figures["transactions"]
    assert rates["failed"] == 0 < rates["committed"] <= n_written
    assert 0 < figures["latency"]["whole"]["p50"] <= figures["latency"]["whole"]["p99"]
    talkers = {talker["peer"]: talker for talker in figures["talkers"]}
    assert all(talker["requests_per_second"] > 0 for talker in talkers.values())


def written_meanwhile(server: Server) -> tuple[int, Metrics] | None:
    """How much was written during a look, and what it saw; None if it saw nothing written."""
    client, n_written = server.client(), 0
    with subprocess.Popen(
        [OVNCP, "top", "--json", str(server.control)], stdout=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            client.transact("OVN_Northbound", SWITCH)
            n_written += 1
        assert process.stdout is not None
        figures: Metrics = json.loads(process.stdout.read())
    client.close()
    return (n_written, figures) if figures["transactions"]["committed"] else None


def test_the_default_is_the_server_that_appctl_finds(tmp_path: Path) -> None:
    with northbound() as (server, _):
        (tmp_path / f"ovsdb-server.{server.pid}.ctl").symlink_to(server.control)
        (tmp_path / "ovsdb-server.pid").write_text(f"{server.pid}\n")
        env = os.environ | {"OVS_RUNDIR": str(tmp_path)}
        command = [OVNCP, "top", "--once"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("ovncp 0.")


def test_a_control_socket_may_be_deep_in_folders(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with northbound() as (server, _):
        (deep / "nb.ctl").symlink_to(server.control)
        assert top("--once", str(deep / "nb.ctl")).startswith("ovncp 0.")


def test_errors_are_one_line() -> None:
    for target, reason in (
        (f"127.0.0.1:{free_port()}", "Connection refused"),
        ("/nowhere/x.ctl", "No such file or directory"),
        ("nothing", "/nothing.pid: No such file or directory; name HOST:PORT of its metrics"),
        ("ftp://x/", "neither HOST:PORT"),
    ):
        line = top("--once", target, status=1)
        assert line.startswith("ovncp top: ") and reason in line and line.count("\n") == 1
    assert "there is no terminal; --once and --json need none" in terminal_missing()
    with Server("c", [("nb", NB_SCHEMA)]) as server:
        assert "is not a valid command" in top("--once", str(server.control), status=1)


def terminal_missing() -> str:
    with northbound() as (_, url):
        return top(url, status=1)


class Terminal:
    """`ovncp top` in a terminal of 80 by 24; `seen` is what it wrote."""

    def __init__(self, target: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            for name in ("COLUMNS", "LINES"):
                os.environ.pop(name, None)
            termios.tcgetattr(0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.execv(OVNCP, [OVNCP, "top", target])
        self.seen = ""

    def read(self, seconds: float) -> bool:
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # the end of a terminal that nobody has open
            return False
        self.seen += data.decode()
        return bool(data)

    def wait_for(self, text: str, n_times: int = 1) -> None:
        deadline = time.monotonic() + 60
        while self.seen.count(text) < n_times:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen}"
            self.read(0.1)

    def press(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.terminal)[3] & termios.ICANON

    def screens(self) -> list[list[str]]:
        drawn = self.seen.split("\x1b[H")[1:]
        return [re.sub(r"\x1b\[\??\w+", "", screen).split("\r\n") for screen in drawn]

    def end(self) -> int:
        """The exit status, once all that is to come has come."""
        while self.read(60):
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.terminal)
        return status


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_in_a_terminal(key: bytes) -> None:
    with northbound() as (server, url):
        server.client().transact("OVN_Northbound", SWITCH)
        terminal = Terminal(url)
        terminal.wait_for("PEER", 2)
        assert terminal.is_raw()
        terminal.press(key)
        assert terminal.end() == 0
        screens = [screen for screen in terminal.screens() if "looking ..." not in screen]
        assert len(screens) >= 2
        for screen in screens:
            assert len(screen) <= 24 and max(map(len, screen)) <= 80
            assert screen[0].startswith("ovncp 0.") and any("OVN_North" in s for s in screen)
        # It draws over what was there, and leaves the terminal as it found it.
        assert "\x1b[2J" not in terminal.seen
        assert terminal.seen.endswith("\x1b[?25h\x1b[?1049l")
        assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1


def test_a_terminal_is_given_back_on_sigterm() -> None:
    with northbound() as (_, url):
        terminal = Terminal(url)
        terminal.wait_for("PEER")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert terminal.seen.endswith("\x1b[?25h\x1b[?1049l")


def test_a_server_that_goes_and_comes_back() -> None:
    with northbound() as (server, _):
        terminal = Terminal(str(server.control))
        terminal.wait_for("PEER")
        server.stop()
        terminal.wait_for("LOST  ")
        server.start()
        n_drawn = terminal.seen.count("ovncp 0.")
        terminal.wait_for("ovncp 0.", n_drawn + 2)
        terminal.press(b"Q")
        assert terminal.end() == 0
