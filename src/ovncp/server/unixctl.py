"""The control socket that `ovs-appctl` talks to (ovs-appctl(8); upstream's lib/unixctl.c).

JSON-RPC 1.0 on a UNIX socket: the method is the command, the params are its arguments, all strings.
A connection has one command under way at a time; connections do not wait for each other.
"""

import asyncio
import contextlib
import inspect
import logging
import os
import socket
from collections.abc import Iterable
from typing import Any

import orjson

from ovncp.server import coverage, dirs
from ovncp.server.command import Command, CommandError, Handler
from ovncp.socket_path import socket_path
from ovncp.wire.json_stream import JsonError, JsonStream

_MAX_REQUEST_BYTES = 16 << 20
_MEMBERS = {"id", "method", "params", "result", "error"}
_FORMATS = ("text", "json")

_log = logging.getLogger("ovncp.unixctl")
coverage.define("unixctl_received", "unixctl_replied")


class ControlSocketError(Exception):
    """The control socket cannot be made; the text is ready to print."""


class Unixctl:
    """A set of commands, and the socket that serves them once started."""

    def __init__(self, program: str, version: str, path: str | None = None) -> None:
        """`version` is what the `version` command answers.

        `path` is the value of --unixctl: None is NAME.PID.ctl in the run directory (with the pid
        at the time of `start`, so after detaching), "none" no socket at all.
        """
        self.path: str | None = None
        self._program = program
        self._wanted_path = path
        self._commands: dict[str, Command] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.register("list-commands", "", 0, 0, lambda _: self._list_commands())
        self.register("version", "", 0, 0, lambda _: version)
        self.register("set-options", "[--format text|json]", 1, 2, _refuse_set_options)

    def register(
        self, name: str, usage: str, min_args: int, max_args: int, handler: Handler
    ) -> None:
        """Add a command; `handler` raises CommandError for an error reply."""
        self._commands[name] = Command(name, usage, min_args, max_args, handler)

    def register_all(self, commands: Iterable[Command]) -> None:
        """Add the commands of another part of the daemon."""
        self._commands.update((command.name, command) for command in commands)

    async def start(self) -> None:
        """Listen.  Raises ControlSocketError."""
        if self._wanted_path == "none":
            return
        name = self._wanted_path
        if name is None:
            name = f"{self._program}.{os.getpid()}.ctl"
        self.path = dirs.abs_file_name(dirs.rundir(), name)
        try:
            listener = bind_unix(self.path)
        except OSError as error:
            text = f"{self.path}: could not initialize control socket ({error.strerror})"
            raise ControlSocketError(text) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Stop listening, drop the connections and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path or "")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve_requests(reader, writer)
        except JsonError as error:
            _log.warning("%s", error)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the daemon stops: either way there is nobody to tell
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        session = _Session(self._commands)
        stream = JsonStream(_MAX_REQUEST_BYTES)
        while data := await reader.read(65536):
            messages, mistake = _feed(stream, data)
            for message in messages:
                writer.write(orjson.dumps(await session.answer(message)))
                await writer.drain()
            if mistake:
                raise mistake

    def _list_commands(self) -> str:
        rows = sorted(self._commands.values())
        lines = "".join(f"  {row.name:<23} {row.usage}\n" for row in rows)
        return f"The available commands are:\n{lines}"


def _feed(stream: JsonStream, data: bytes) -> tuple[list[Any], JsonError | None]:
    """The messages that `data` completes, and what is wrong after them."""
    try:
        return stream.feed(data), None
    except JsonError as error:
        return error.completed, error


class _Session:
    """One client: the commands it may call, and the reply format that it has chosen."""

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands
        self._format = "text"

    async def answer(self, message: Any) -> dict[str, Any]:
        """The reply to one message; JsonError if it is no request, which ends the session."""
        if not _is_request(message):
            raise JsonError("received unexpected message")
        coverage.COUNTERS["unixctl_received"] += 1
        method, params, id_ = message["method"], message["params"], message["id"]
        _log.debug("received request %s%s, id=%s", method, params, id_)
        try:
            result = self._result(await self._run(method, params))
        except CommandError as error:
            return self._reply(id_, {"error": _line(str(error))})
        return self._reply(id_, {"result": result, "error": None})

    def _result(self, text: str) -> Any:
        if self._format == "json":
            return {"reply-format": "plain", "reply": text}
        return _line(text)

    def _reply(self, id_: Any, members: dict[str, Any]) -> dict[str, Any]:
        coverage.COUNTERS["unixctl_replied"] += 1
        _log.debug("replying with %s, id=%s", members, id_)
        return {"id": id_, **members}

    async def _run(self, method: str, params: list[Any]) -> str:
        command = self._commands.get(method)
        if command is None:
            hint = '(use "list-commands" to see a list of valid commands)'
            raise CommandError(f'"{method}" is not a valid command {hint}')
        _check_arguments(command, params)
        if method == "set-options":
            self._set_options(params)
            return ""
        return await _call(command, params)

    def _set_options(self, params: list[str]) -> None:
        if params[0] != "--format" or len(params) < 2:
            raise CommandError(f"invalid option {params[0]}")
        if params[1] not in _FORMATS:
            raise CommandError(f"option {params[0]} has invalid value {params[1]}")
        self._format = params[1]


async def _call(command: Command, params: list[str]) -> str:
    try:
        result = command.handler(params)
        return await result if inspect.isawaitable(result) else result
    except CommandError:
        raise
    except Exception as error:
        # A defect of one command is that command's failure, not the daemon's.
        _log.exception("%s failed", command.name)
        raise CommandError(f"{command.name}: internal error: {error}") from error


def _check_arguments(command: Command, params: list[Any]) -> None:
    name, count = command.name, len(params)
    if count < command.min_args:
        raise CommandError(f'"{name}" command requires at least {command.min_args} arguments')
    if count > command.max_args:
        raise CommandError(f'"{name}" command takes at most {command.max_args} arguments')
    if not all(isinstance(param, str) for param in params):
        raise CommandError(f'"{name}" command has non-string argument')


def _refuse_set_options(_: list[str]) -> str:
    raise CommandError("set-options is a property of a session")


def _is_request(message: Any) -> bool:
    """Whether the C server takes it for one: any other member or type ends the session."""
    return (
        isinstance(message, dict)
        and message.keys() <= _MEMBERS
        and isinstance(message.get("method"), str)
        and isinstance(message.get("params"), list)
        and message.get("id") is not None
        and message.get("result") is None
        and message.get("error") is None
    )


def _line(text: str) -> str:
    return f"{text}\n" if text and not text.endswith("\n") else text


def bind_unix(path: str) -> socket.socket:
    """A listening UNIX socket at `path`, in place of whatever was there.

    Its mode is 0770 less the umask, as every socket of an OVS daemon.  A path over the length of
    sockaddr_un is reached through its directory.  Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    result = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o077)
    os.umask(umask | 0o007)
    try:
        with socket_path(path) as short:
            result.bind(short)
        result.listen()  # at once: who waits for the file connects as soon as it is there
    except OSError:
        result.close()
        raise
    finally:
        os.umask(umask)
    return result
