"""A C Raft cluster is imported, compared and left behind by its clients, which lose nothing."""

from __future__ import annotations

import secrets

import ovs.db.idl
import ovs.poller

from engines import EtcdCluster, Postgres
from move_from_c import NAME, SCHEMA, Move, Writer


class IdlWriter(Writer):
    """A writer that is a program of the Python IDL of Open vSwitch, with its list of servers."""

    def run(self) -> None:
        helper = ovs.db.idl.SchemaHelper(schema_json=SCHEMA)
        helper.register_all()
        remotes = ",".join(f"tcp:{host}:{port}" for host, port in self._addresses)
        idl = ovs.db.idl.Idl(remotes, helper, leader_only=False)
        while not self._is_over.is_set():
            self._write(idl)
        self.address = ("127.0.0.1", int(idl.session_name().rpartition(":")[2]))
        idl.close()

    def _write(self, idl: ovs.db.idl.Idl) -> None:
        row = f"{self.name} {len(self.stored)}"
        counts = [count for count in idl.tables["Count"].rows.values() if count.writer == self.name]
        if counts and counts[0].number > len(self.stored):
            self.note(row)  # It was stored, and the answer got lost.
            return
        transaction = ovs.db.idl.Transaction(idl)
        transaction.insert(idl.tables["Row"]).name = row
        if counts:
            counts[0].verify("number")
            counts[0].number += 1
        else:
            count = transaction.insert(idl.tables["Count"])
            count.writer, count.number = self.name, 1
        if transaction.commit_block() == transaction.SUCCESS:
            self.note(row)
        else:
            _run_for_a_moment(idl)


def _run_for_a_moment(idl: ovs.db.idl.Idl) -> None:
    idl.run()
    poller = ovs.poller.Poller()
    idl.wait(poller)
    poller.timer_wait(20)
    poller.block()


def move_clients(engine: EtcdCluster | Postgres, writer: type[Writer]) -> None:
    """Move a cluster with clients that are of this kind, and see that nothing is lost."""
    url = engine.url(f"{NAME}-{secrets.token_hex(4)}")
    with Move(url, n_rows=200, writer=writer) as move, move.under_load():
        importing = move.start_import()
        move.start_servers()
        move.wait_for_answers()
        move.switch(importing)
        move.check()
        assert all(client.address in move.new for client in move.clients)


def test_clients_go_on_at_the_new_servers(engine: EtcdCluster | Postgres) -> None:
    move_clients(engine, Writer)


def test_programs_with_an_idl_go_on_at_the_new_servers(etcd: EtcdCluster) -> None:
    move_clients(etcd, IdlWriter)
