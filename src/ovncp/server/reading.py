"""What a configuration says once the columns are read that it names (`db:DB,TABLE,COLUMN`)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from ovncp.server import database_remotes
from ovncp.server.configuration import ConfigurationError, RemoteOptions, TlsSettings
from ovncp.server.database_remotes import PREFIX, Place
from ovncp.server.runner import Runner
from ovncp.server.tls import TlsFiles


class Reading:
    """One reading of what is in the databases of `runners`.

    `errors` has what is wrong, as text, and `tables` the names of the tables that had a say, by
    database: when one of them changes, it is time for another reading.
    """

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self.errors: list[str] = []
        self.tables: dict[str, set[str]] = {}
        self._runners = runners

    def find(self, spec: str) -> Place | None:
        """The column that `spec` names, None while nobody can say whether it exists.

        Raises ConfigurationError if it does not.
        """
        if self._is_awaited(spec):
            return None
        databases = {name: runner.database for name, runner in self._runners.items()}
        place = database_remotes.find(spec, databases)
        self.tables.setdefault(place.database.name, set()).update(place.tables)
        return place

    def _is_awaited(self, spec: str) -> bool:
        """Whether `spec` is about a relayed database whose schema is not known yet."""
        name, *rest = spec.removeprefix(PREFIX).split(",")
        runner = self._runners.get(name)
        if runner is None or runner.is_available:
            return False
        self.tables.setdefault(name, set()).update(rest[:1])
        return True

    def place(self, spec: str) -> Place | None:
        """As `find`, but a column that does not exist is among the errors."""
        try:
            return self.find(spec)
        except ConfigurationError as error:
            self.errors.append(str(error))
            return None

    def remotes(self, wanted: Mapping[str, RemoteOptions]) -> Iterator[tuple[str, RemoteOptions]]:
        """The targets to serve, with their options."""
        for target, options in wanted.items():
            if not target.startswith(PREFIX):
                yield target, options
            elif (place := self.place(target)) is not None:
                yield from database_remotes.remotes(place)

    def tls_files(self, settings: TlsSettings) -> TlsFiles:
        """The TLS files to use."""
        read = TlsSettings(**{name: self._text(text) for name, text in asdict(settings).items()})
        return TlsFiles(
            private_key=read.private_key,
            certificate=read.certificate,
            ca_cert=read.ca_cert or read.bootstrap_ca_cert,
            peer_ca_cert=read.peer_ca_cert,
            bootstrap=read.bootstrap_ca_cert is not None,
            protocols=read.ssl_protocols,
            ciphers=read.ssl_ciphers,
            ciphersuites=read.ssl_ciphersuites,
        )

    def _text(self, text: str | None) -> str | None:
        """`text` itself, or what stands in the column that it names."""
        if text is None or not text.startswith(PREFIX):
            return text
        place = self.place(text)
        try:
            return None if place is None else database_remotes.first_string(place)
        except ConfigurationError as error:
            self.errors.append(str(error))
            return None
