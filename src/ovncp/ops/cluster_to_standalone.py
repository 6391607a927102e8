"""A standalone file of a member's data, when its cluster is gone (ovsdb-tool(1)).

All of the member's log is taken: see "What is committed" in `raft_file`.
"""

from ovncp.log import standalone
from ovncp.ops import database_file, raft_file
from ovncp.ops.refusal import Refusal


def convert(path: str, clustered_path: str) -> str | None:
    """Make the standalone file `path`; return why not all of the clustered file was read, if so.

    Raises OvsdbError and Refusal, of which none leaves a file.
    """
    if database_file.is_standalone(clustered_path):
        raise Refusal("Database is not clustered db.\n")
    source = raft_file.read(clustered_path)
    with database_file.log_errors():
        standalone.create(path, *source.standalone())
    return source.damage
