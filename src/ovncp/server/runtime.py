"""A running server and what it was told to serve: opens databases and remotes, adds and removes them."""

import logging

from ovncp.log.registry import open_log
from ovncp.server.configuration import (
    Configuration,
    ConfigurationError,
    RemoteOptions,
    TlsSettings,
)
from ovncp.server.remote import Remote
from ovncp.server.server import Server
from ovncp.server.tls import TlsFiles

_LOG = logging.getLogger("ovncp.ovsdb_server")


class Runtime:
    """`remotes` is by target as it was given, `files` the databases' names by file."""

    def __init__(self, server: Server, *, fsync: bool) -> None:
        self.server = server
        self.remotes: dict[str, Remote] = {}
        self.files: dict[str, str] = {}
        self.tls = TlsSettings()
        self._fsync = fsync

    async def apply(self, configuration: Configuration) -> None:
        """Serve what `configuration` names. Raises LogError, OvsdbError and TargetError."""
        self.tls = configuration.tls
        for file in configuration.databases:
            await self.add_database(file)
        for target, options in configuration.remotes.items():
            await self.add_remote(target, options)

    async def add_database(self, file: str) -> str:
        """Serve the database in `file`; its name. Raises LogError and OvsdbError."""
        if file.startswith("relay:"):
            raise ConfigurationError(f"{file}: relay databases are not supported yet")
        log = await open_log(file, fsync=self._fsync)
        try:
            runner = await self.server.add_database(log)
        except BaseException:
            await log.close()
            raise
        self.files[file] = runner.name
        return runner.name

    async def add_remote(self, target: str, options: RemoteOptions) -> None:
        """Serve `target` too. Raises TargetError and OSError."""
        remote = Remote(self.server, target, options, self.tls_files)
        await remote.start()
        self.remotes[target] = remote

    async def remove_remote(self, target: str) -> None:
        """Stop serving `target`."""
        await self.remotes.pop(target).close()

    def tls_files(self) -> TlsFiles:
        """The TLS files of now."""
        settings = self.tls
        return TlsFiles(
            private_key=settings.private_key,
            certificate=settings.certificate,
            ca_cert=settings.ca_cert or settings.bootstrap_ca_cert,
            peer_ca_cert=settings.peer_ca_cert,
            bootstrap=settings.bootstrap_ca_cert is not None,
            protocols=settings.ssl_protocols,
            ciphers=settings.ssl_ciphers,
            ciphersuites=settings.ssl_ciphersuites,
        )

    async def close(self) -> None:
        """Stop serving."""
        for target in list(self.remotes):
            await self.remove_remote(target)
        await self.server.close()
