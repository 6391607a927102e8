"""Where an OVS daemon keeps its files (ovs-vswitchd(8), ENVIRONMENT; Debian's defaults).

Each directory is an environment variable with a default.  The variables are read at each call,
so that a program which sets them before it starts the server is obeyed.
"""

import os


def rundir() -> str:
    """Pidfiles and control sockets: OVS_RUNDIR."""
    return os.environ.get("OVS_RUNDIR") or "/var/run/openvswitch"


def logdir() -> str:
    """Log files: OVS_LOGDIR."""
    return os.environ.get("OVS_LOGDIR") or "/var/log/openvswitch"


def sysconfdir() -> str:
    """The parent of the configuration directory: OVS_SYSCONFDIR."""
    return os.environ.get("OVS_SYSCONFDIR") or "/etc"


def dbdir() -> str:
    """Database files: OVS_DBDIR, else `openvswitch` under OVS_SYSCONFDIR."""
    return os.environ.get("OVS_DBDIR") or f"{sysconfdir()}/openvswitch"


def pkgdatadir() -> str:
    """Schemas and scripts of the package: OVS_PKGDATADIR."""
    return os.environ.get("OVS_PKGDATADIR") or "/usr/share/openvswitch"


def abs_file_name(directory: str | None, name: str) -> str:
    """`name` itself if absolute, else under `directory`, else under the working directory.

    The result is joined as text, never normalised: messages quote it as it was given.
    """
    return name if name.startswith("/") else f"{directory or os.getcwd()}/{name}"
