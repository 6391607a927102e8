"""How the servers of a log know of each other: each shows a notice in the log's engine.

They have nothing to say to each other, all of which is in the log. A notice is for people: it says
who a server is, where its clients reach it, and how far it has come. One that is not renewed for
half a minute is gone, and so is its server.
"""

import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import orjson

from ovncp.log.base import LogError
from ovncp.log.engine import SharedLog
from ovncp.server.remote import Remote

RENEWAL_MSEC = 10_000
_TTL_MSEC = 30_000
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Peer:
    """One server of a log.

    `addresses` are where it takes clients, `index` is the last entry that it had applied at
    `date_msec`, in milliseconds since the epoch on its own clock.
    """

    sid: str
    addresses: tuple[str, ...]
    host: str
    pid: int
    version: str
    index: int
    is_connected: bool
    date_msec: int

    @property
    def address(self) -> str:
        """The address to show where there is room for one: for others than this host if any is."""
        remote = [address for address in self.addresses if not address.startswith("unix:")]
        return next(iter([*remote, *self.addresses]), self.host)


def addresses(remotes: Iterable[Remote]) -> tuple[str, ...]:
    """Where clients reach those of `remotes` that listen, as clients name it (ovsdb(7))."""
    return tuple(filter(None, map(_address, remotes)))


def _address(remote: Remote) -> str | None:
    target = remote.target
    if not target.is_passive:
        return None
    kind = target.kind.removeprefix("p")
    if kind == "unix":
        return f"{kind}:{target.path}"
    host = socket.gethostname() if target.host in _EVERYWHERE else target.host
    port = remote.status().details.get("bound_port", target.port)
    return f"{kind}:[{host}]:{port}" if ":" in host else f"{kind}:{host}:{port}"


class Peers:
    """The notices of one log, this server's among them."""

    def __init__(self, log: SharedLog) -> None:
        self._log = log

    async def show(self, peer: Peer) -> None:
        """Show `peer` to the others, for a while. Raises LogError."""
        await self._log.post(peer.sid, orjson.dumps(asdict(peer)), _TTL_MSEC)

    async def hide(self, sid: str) -> None:
        """Let the others know at once that the server `sid` is gone. Raises LogError."""
        await self._log.withdraw(sid)

    async def read(self) -> list[Peer]:
        """The servers of the log, in the order of their ids. Raises LogError."""
        notices = await self._log.notices()
        return [_parse(notices[sid]) for sid in sorted(notices)]


def _parse(notice: bytes) -> Peer:
    try:
        json = orjson.loads(notice)
        # A later version may have more to say.
        known = {field.name: json[field.name] for field in fields(Peer)}
        return Peer(**{**known, "addresses": tuple(known["addresses"])})
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise LogError(f"a server shows what this version cannot read: {notice!r}") from error
