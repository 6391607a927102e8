"""The Python packages `ovs` (its IDL) and `ovsdbapp` on our server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import ovs.db.idl
import ovs.poller
import pytest
from ovsdbapp.backend.ovs_idl import connection
from ovsdbapp.schema.ovn_northbound import impl_idl as northbound
from ovsdbapp.schema.ovn_southbound import impl_idl as southbound

from interop.programs import KIND, NB_SCHEMA, Network
from servers import Server


@pytest.fixture
def server(kind: str) -> Iterator[Server]:
    with Server(kind, [("nb", NB_SCHEMA)]) as server:
        yield server


def new_idl(server: Server, *tables: str) -> ovs.db.idl.Idl:
    helper = ovs.db.idl.SchemaHelper(str(NB_SCHEMA))
    for table in tables:
        helper.register_table(table)
    return ovs.db.idl.Idl(server.remote, helper, probe_interval=0)


def run_until(
    idl: ovs.db.idl.Idl, done: Callable[[], object], seconds: float = 60, what: str = "the IDL"
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        idl.run()
        poller = ovs.poller.Poller()
        idl.wait(poller)
        poller.timer_wait(50)
        poller.block()


def names(idl: ovs.db.idl.Idl) -> set[str]:
    return {row.name for row in idl.tables["Logical_Switch"].rows.values()}


def insert(idl: ovs.db.idl.Idl, name: str) -> None:
    transaction = ovs.db.idl.Transaction(idl)
    transaction.insert(idl.tables["Logical_Switch"]).name = name
    assert transaction.commit_block() == ovs.db.idl.Transaction.SUCCESS


def test_the_idl_sees_what_another_wrote(server: Server) -> None:
    writer, reader = (new_idl(server, "Logical_Switch") for _ in range(2))
    for idl in (writer, reader):
        run_until(idl, idl.has_ever_connected)
    insert(writer, "web")
    run_until(reader, lambda: names(reader) == {"web"})
    transaction = ovs.db.idl.Transaction(writer)
    for row in writer.tables["Logical_Switch"].rows.values():
        row.setkey("other_config", "subnet", "10.0.0.0/24")
        row.verify("name")
    assert transaction.commit_block() == ovs.db.idl.Transaction.SUCCESS
    rows = reader.tables["Logical_Switch"].rows
    run_until(reader, lambda: next(iter(rows.values())).other_config == {"subnet": "10.0.0.0/24"})
    transaction = ovs.db.idl.Transaction(writer)
    next(iter(writer.tables["Logical_Switch"].rows.values())).delete()
    assert transaction.commit_block() == ovs.db.idl.Transaction.SUCCESS
    run_until(reader, lambda: names(reader) == set())


def test_a_verify_that_no_longer_holds_is_tried_again(server: Server) -> None:
    first, second = (new_idl(server, "Logical_Switch") for _ in range(2))
    for idl in (first, second):
        run_until(idl, idl.has_ever_connected)
    insert(first, "web")
    run_until(second, lambda: names(second) == {"web"})
    transaction = ovs.db.idl.Transaction(first)
    next(iter(first.tables["Logical_Switch"].rows.values())).name = "renamed"
    assert transaction.commit_block() == ovs.db.idl.Transaction.SUCCESS
    transaction = ovs.db.idl.Transaction(second)
    row = next(iter(second.tables["Logical_Switch"].rows.values()))
    row.verify("name")
    row.name = "late"
    assert transaction.commit_block() == ovs.db.idl.Transaction.TRY_AGAIN


def test_the_idl_sees_what_its_condition_lets_through(server: Server) -> None:
    writer, reader = (new_idl(server, "Logical_Switch") for _ in range(2))
    reader.cond_change("Logical_Switch", [["name", "==", "web"]])
    for idl in (writer, reader):
        run_until(idl, idl.has_ever_connected)
    for name in ("web", "app", "outside"):
        insert(writer, name)
    run_until(reader, lambda: names(reader) == {"web"})
    reader.cond_change("Logical_Switch", [["name", "!=", "web"]])
    run_until(reader, lambda: names(reader) == {"app", "outside"})


def resumed(server: Server, idl: ovs.db.idl.Idl, change: Callable[[], None]) -> list[Any]:
    """The first element of each reply to monitor_cond_since while the IDL reconnects."""
    found: list[Any] = []
    receive = idl._session.recv

    def recv() -> Any:
        message = receive()
        result = message and message.type == ovs.jsonrpc.Message.T_REPLY and message.result
        if isinstance(result, list) and len(result) == 3 and isinstance(result[0], bool):
            found.append(result[0])
        return message

    idl._session.recv = recv
    number = idl._session.get_seqno()
    idl.force_reconnect()
    run_until(idl, lambda: idl._session.get_seqno() > number, what="the connection to end")
    change()
    run_until(idl, lambda: found, what="a reply to monitor_cond_since")
    return found


@pytest.mark.skipif(KIND == "c", reason="the C server resumes clustered databases only")
def test_the_idl_resumes_where_it_was(server: Server) -> None:
    writer, reader = (new_idl(server, "Logical_Switch") for _ in range(2))
    for idl in (writer, reader):
        run_until(idl, idl.has_ever_connected)
    insert(writer, "before")
    run_until(reader, lambda: names(reader) == {"before"})
    found = resumed(server, reader, lambda: insert(writer, "between"))
    assert found[-1] is True
    run_until(reader, lambda: names(reader) == {"before", "between"})


@pytest.mark.skipif(KIND == "c", reason="the C server resumes clustered databases only")
def test_the_idl_resumes_across_a_restart(server: Server) -> None:
    writer, reader = (new_idl(server, "Logical_Switch") for _ in range(2))
    for idl in (writer, reader):
        run_until(idl, idl.has_ever_connected)
    insert(writer, "before")
    run_until(reader, lambda: names(reader) == {"before"})
    server.kill9()

    def restart_and_write() -> None:
        server.restart()
        late = new_idl(server, "Logical_Switch")
        run_until(late, late.has_ever_connected)
        insert(late, "between")

    assert resumed(server, reader, restart_and_write)[-1] is True
    run_until(reader, lambda: names(reader) == {"before", "between"})


def test_the_idl_holds_a_lock(server: Server) -> None:
    first, second = (new_idl(server, "Logical_Switch") for _ in range(2))
    for idl in (first, second):
        idl.set_lock("north")
        run_until(idl, idl.has_ever_connected)
        run_until(idl, lambda idl=idl: idl.has_lock or idl.is_lock_contended)
    assert first.has_lock and second.is_lock_contended
    transaction = ovs.db.idl.Transaction(second)
    transaction.insert(second.tables["Logical_Switch"]).name = "unlawful"
    assert transaction.commit_block() == ovs.db.idl.Transaction.NOT_LOCKED
    first.close()
    run_until(second, lambda: second.has_lock)
    insert(second, "lawful")


def api(network: Network, database: str, backend: Any) -> tuple[Any, connection.Connection]:
    idl = connection.OvsdbIdl.from_server(network.server.remote, database)
    link = connection.Connection(idl=idl, timeout=60)
    backend._ovsdb_connection = None  # of an earlier test, as there is one for each process
    return backend(link), link


def test_ovsdbapp_builds_a_network(network: Network) -> None:
    network.northd()
    north, link = api(network, "OVN_Northbound", northbound.OvnNbApiIdlImpl)
    try:
        with north.transaction(check_error=True) as transaction:
            transaction.add(north.ls_add("web"))
            transaction.add(north.lsp_add("web", "web1"))
            transaction.add(north.lsp_set_addresses("web1", ["00:00:00:00:01:01 10.0.1.11"]))
            transaction.add(north.lr_add("gateway"))
            transaction.add(
                north.lrp_add("gateway", "to-web", "00:00:00:00:ff:01", ["10.0.1.1/24"])
            )
        north.acl_add("web", "to-lport", 1000, "ip4", "drop").execute(check_error=True)
        north.lb_add("vip", "10.9.9.9:80", ["10.0.1.11:80"]).execute(check_error=True)
        north.ls_lb_add("web", "vip").execute(check_error=True)
        north.lr_nat_add("gateway", "snat", "172.16.0.1", "10.0.0.0/8").execute(check_error=True)
        north.pg_add("servers", may_exist=True).execute(check_error=True)
        north.dhcp_options_add("10.0.1.0/24").execute(check_error=True)
        north.db_set("Logical_Switch", "web", ("external_ids", {"a": "b"})).execute(
            check_error=True
        )
        assert [switch.name for switch in north.ls_list().execute(check_error=True)] == ["web"]
        assert len(north.acl_list("web").execute(check_error=True)) == 1
        north.lsp_del("web1").execute(check_error=True)
        assert north.lsp_list("web").execute(check_error=True) == []
    finally:
        link.stop()
    network.nbctl("--wait=sb", "sync")
    assert "10.9.9.9" in network.sbctl("dump-flows", "web")


def test_ovsdbapp_reads_the_southbound_database(network: Network) -> None:
    network.northd()
    network.nbctl("--wait=sb", "ls-add", "web", "--", "lsp-add", "web", "web1")
    south, link = api(network, "OVN_Southbound", southbound.OvnSbApiIdlImpl)
    try:
        found = south.db_find("Port_Binding", ("logical_port", "=", "web1")).execute(
            check_error=True
        )
        assert [row["logical_port"] for row in found] == ["web1"]
        south.chassis_add("hv1", ["geneve"], "127.0.0.1").execute(check_error=True)
        south.lsp_bind("web1", "hv1").execute(check_error=True)
    finally:
        link.stop()
    network.nbctl("wait-until", "Logical_Switch_Port", "web1", "up=true")
