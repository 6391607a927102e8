"""Where log entries leave for a syslog daemon (ovs-vswitchd(8), --syslog-method, --syslog-target).

Datagrams of our own rather than syslog(3): that one blocks, and knows no other address.
"""

import errno
import socket

from ovncp.server.command import CommandError
from ovncp.server.log_pattern import Entry, compile_pattern

# syslog(3) numbers them in this order; the last eight are the local ones.
_NAMES = "kern user mail daemon auth syslog lpr news uucp clock"
FACILITIES = {name: n << 3 for n, name in enumerate(_NAMES.split())}
FACILITIES |= {"ftp": 11 << 3, "ntp": 12 << 3, "audit": 13 << 3, "alert": 14 << 3}
FACILITIES |= {"clock2": 15 << 3} | {f"local{n}": (16 + n) << 3 for n in range(8)}

_TARGET_HEADER = "<%B>1 %D{%Y-%m-%dT%H:%M:%S.###Z} %E %A %P %c - \ufeff"


class SpecError(CommandError):
    """A logging option that cannot be obeyed; the text says why in ovs-appctl's words."""


class Syslog:
    """A datagram socket to a syslog daemon: quiet when nobody is there, never blocking."""

    def __init__(self, prefix: str, header: str, address: str | tuple[str, int] | None) -> None:
        self.prefix = prefix
        self._header = compile_pattern(header)
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, entry: Entry, text: str) -> None:
        """Send each line of `text` as a message of its own; one that cannot be sent is dropped."""
        if self._address is None:
            return
        header = self._header(entry)
        for line in filter(None, text.split("\n")):
            self._send(f"{header}{line}".encode("utf-8", "backslashreplace"), self._address)

    def _send(self, message: bytes, address: str | tuple[str, int]) -> None:
        # A log that cannot be written has nowhere to complain, and must not stop the daemon.
        try:
            if self._socket is None:
                self._socket = _datagram_socket(address)
            self._socket.send(message, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self.close()

    def close(self) -> None:
        """Close the socket; the next message opens it again (the daemon may have restarted)."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _datagram_socket(address: str | tuple[str, int]) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if isinstance(address, tuple) and ":" in address[0]:
        family = socket.AF_INET6
    result = socket.socket(family, socket.SOCK_DGRAM)
    try:
        result.connect(address)
    except OSError:
        result.close()
        raise
    return result


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise SpecError(f"{text}: syslog address is not HOST:PORT")
    return host.strip("[]"), int(port)


def open_syslog(method: str) -> Syslog:
    """The syslog of `--syslog-method`: libc, null, unix:FILE or udp:IP:PORT; else SpecError."""
    kind, _, rest = method.partition(":")
    if method == "libc":
        return Syslog("<%B> %D{%h %e %T} %E %A:", "<%B>%d{%b %e %T} %A: ", "/dev/log")
    if kind == "null":
        return Syslog("", "", None)
    if kind == "unix" and rest:
        return Syslog("<%B>", "<%B>", rest)
    if kind == "udp" and rest:
        return Syslog("<%B>", "<%B>", _host_port(rest))
    raise SpecError(f"unsupported syslog method '{method}'")


def open_target(target: str) -> Syslog:
    """The RFC 5424 receiver of `--syslog-target`, HOST:PORT; else SpecError."""
    return Syslog("", _TARGET_HEADER, _host_port(target))
