"""A remote that nothing can be done with is no reason not to serve the others, as on C."""

from __future__ import annotations

import pytest

from interop.programs import KIND, NB_SCHEMA, wait_for
from servers import Server, run

REMOTES = {
    "nonsense": "Address family not supported by protocol",
    "nonsense:1": "Address family not supported by protocol",
    "": "Address family not supported by protocol",
    "ptcp:99999": 'bad port number "99999"',
    "ptcp:0:127.0.0.1:5": "port must be specified",
    "tcp:": "Address family not supported by protocol",
    "ssl:127.0.0.1:1": "Private key must be configured to use SSL",
    "tcp:nothing.invalid:1": "Address family not supported by protocol",
    "punix:/no/where": "listen failed: No such file or directory",
    "ptcp:1:192.0.2.1": "listen failed: Cannot assign requested address",
}


@pytest.mark.parametrize("kind", [KIND, "c"])
def test_a_bad_remote_is_told_of_and_the_others_are_served(kind: str) -> None:
    options = [f"--remote={remote}" for remote in REMOTES]
    with Server(kind, [("nb", NB_SCHEMA)], options=options) as server:
        for remote, reason in REMOTES.items():
            wait_for(lambda reason=reason: reason in server.log, f"a word on {remote!r}")
        assert "OVN_Northbound" in run("ovsdb-client", "list-dbs", server.remote)
        listed = server.appctl("ovsdb-server/list-remotes").splitlines()
        assert set(REMOTES) <= set(listed)
        for remote in REMOTES:
            server.appctl("ovsdb-server/remove-remote", remote)
        server.appctl("ovsdb-server/add-remote", "nonsense:2")
        wait_for(lambda: "nonsense:2: connection attempt failed" in server.log, "a word")
        assert server.stop() == 0
