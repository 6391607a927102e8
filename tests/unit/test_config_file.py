"""The configuration as JSON: what is taken, and what is refused with which words."""

import pytest

from ovncp.server import config_file
from ovncp.server.config_file import SavedConfiguration
from ovncp.server.configuration import Configuration, ConfigurationError, RemoteOptions

FULL = b"""{
    "remotes": {
        "punix:db.sock": null,
        "ptcp:6641": {"max-backoff": 2000, "inactivity-probe": 0, "read-only": true, "role": "x",
                      "dscp": 10}
    },
    "databases": {
        "a.db": null, "b.db": {}, "c.db": {"service-model": "standalone"},
        "D": {"service-model": "relay", "source": {"tcp:x:1,tcp:y:1": {"inactivity-probe": 60000}}}
    }
}"""
RELAY = "relay:D:tcp:x:1,tcp:y:1"


def test_all_that_is_known():
    assert config_file.parse(FULL) == Configuration(
        databases=("a.db", "b.db", "c.db", RELAY),
        remotes={
            "punix:db.sock": RemoteOptions(),
            "ptcp:6641": RemoteOptions(2000, 0, read_only=True, role="x", dscp=10),
        },
        sources={RELAY: RemoteOptions(inactivity_probe_msec=60000)},
    )


@pytest.mark.parametrize("text", [b"{}", b'{"remotes": null, "databases": {}}'])
def test_nothing_at_all(text):
    assert config_file.parse(text) == Configuration()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "reading JSON failed"),
        ("[]", "configuration in a file is not a JSON object"),
        ('{"remote": {}}', "has unknown member 'remote'; there are: remotes, databases"),
        ('{"remotes": []}', "'remotes' is not a JSON object"),
        ('{"databases": 1}', "'databases' is not a JSON object"),
        ('{"remotes": {"ptcp:": 1}}', "remote ptcp: is not a JSON object"),
        (
            '{"remotes": {"ptcp:": {"probe": 1}}}',
            "remote ptcp: has unknown member 'probe'; "
            "there are: max-backoff, inactivity-probe, read-only, role, dscp",
        ),
        (
            '{"remotes": {"ptcp:": {"max-backoff": "1s"}}}',
            "remote ptcp:: 'max-backoff' must be a number of milliseconds",
        ),
        (
            '{"remotes": {"ptcp:": {"inactivity-probe": -1}}}',
            "remote ptcp:: 'inactivity-probe' must be a number of milliseconds",
        ),
        (
            '{"remotes": {"ptcp:": {"read-only": 1}}}',
            "remote ptcp:: 'read-only' must be true or false",
        ),
        (
            '{"remotes": {"ptcp:": {"dscp": 64}}}',
            "remote ptcp:: 'dscp' must be a number from 0 to 63",
        ),
        (
            '{"databases": {"a.db": {"model": "relay"}}}',
            "database a.db has unknown member 'model'",
        ),
        (
            '{"databases": {"a.db": {"service-model": "single"}}}',
            "database a.db: 'single' is not a valid service model; there are: standalone, relay",
        ),
        (
            '{"databases": {"a": {"service-model": "relay"}}}',
            "database a: 'source' must have one member, the remotes",
        ),
        (
            '{"databases": {"a": {"service-model": "relay", "source": {"unix:x": {"role": ""}}}}}',
            "source unix:x has unknown member 'role'; "
            "there are: max-backoff, inactivity-probe, dscp",
        ),
        (
            '{"databases": {"a": {"service-model": "active-backup", "backup": false}}}',
            "database a: service model 'active-backup' is not supported yet",
        ),
        (
            '{"databases": {"a.db": {"backup": true}}}',
            "database a.db: 'backup' has no meaning for a standalone database",
        ),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ConfigurationError) as caught:
        config_file.parse(text.encode())
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        config_file.read(str(tmp_path / "nothing.json"))


def test_what_is_saved_is_found_again():
    saved = SavedConfiguration()
    assert saved.load() is None
    for configuration in (config_file.parse(FULL), Configuration(("d.db",))):
        saved.save(configuration)
        assert saved.load() == configuration
