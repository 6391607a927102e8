"""A node's configuration: file, environment, flags, and what is said of what makes no sense."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ovncp.cli import config
from ovncp.cli.config import ConfigError, load
from servers import OVNCP


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def value(loaded: config.Loaded, path: str) -> Any:
    found: Any = loaded.config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_later_sources_override_earlier_ones(file: Any) -> None:
    path = file("server:\n  port: 1001\n  host: ::1\ncluster:\n  heartbeat_interval: 2s\n")
    loaded = load(path, {}, {})
    assert value(loaded, "server.port") == 1001
    loaded = load(path, {"NODE_PORT": "1002"}, {})
    assert value(loaded, "server.port") == 1002
    loaded = load(path, {"NODE_PORT": "1002"}, {"port": "1003"})
    assert value(loaded, "server.port") == 1003
    assert (value(loaded, "server.host"), value(loaded, "cluster.heartbeat_interval")) == (
        "::1",
        2.0,
    )
    assert loaded.sources["server.port"] == "--port"
    assert loaded.sources["server.host"] == str(path)
    assert load(None, {}, {}).config == config.Config()


def test_the_whole_of_a_file_is_read(file: Any) -> None:
    path = file("""
database:
  primary: {host: db-1, port: 5433, database: net, user: me, password: "${DB_PASSWORD}"}
  replicas:
    - host: db-2
    - host: ${SECOND:-db-3}
  connection_max_lifetime: 30m
ovn:
  northbound:
    endpoints: ["tcp:10.0.0.1:6641", "tcp:10.0.0.2:6641"]
  southbound:
    endpoints: tcp:10.0.0.1:6642, tcp:10.0.0.2:6642
  connection_timeout: 250ms
redis:
  addresses: ["r1:6379"]
  cluster_mode: yes
batch_processor:
  batch_timeout: 0.05
""")
    loaded = load(path, {"DB_PASSWORD": "a: b"}, {})
    database = loaded.config.database
    assert (database.primary.host, database.primary.password) == ("db-1", "a: b")
    assert [replica.host for replica in database.replicas] == ["db-2", "db-3"]
    assert (database.replicas[0].port, database.connection_max_lifetime) == (5432, 1800.0)
    assert loaded.config.ovn.northbound.endpoints == ("tcp:10.0.0.1:6641", "tcp:10.0.0.2:6641")
    assert loaded.config.ovn.southbound.endpoints == ("tcp:10.0.0.1:6642", "tcp:10.0.0.2:6642")
    assert loaded.config.ovn.connection_timeout == 0.25
    assert loaded.config.redis.cluster_mode is True
    assert loaded.config.batch_processor.batch_timeout == 0.05
    assert "a: b" not in repr(loaded.config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server:\n  prot: 1\n", "server.prot means nothing; there is host, port"),
        ("sever:\n  port: 1\n", "sever means nothing"),
        ("server: 8080\n", "server: settings are wanted"),
        ("server:\n  port: 70000\n", "up to 65535"),
        ("server:\n  port: [1]\n", "server.port"),
        ("cluster:\n  node_timeout: 5 parsecs\n", "such as 100ms, 5s"),
        ("cluster:\n  enabled: perhaps\n", "true or false"),
        ("cluster:\n  enabled: true\n", "set redis.url"),
        ("cache:\n  type: disk\n", "one of auto, memory, redis"),
        ("cache:\n  type: redis\n", "there is none"),
        ("session:\n  store: memory\nredis:\n  url: redis://r\n", "other nodes cannot see"),
        ("database:\n  replicas: {host: a}\n", "a list is wanted"),
        ("database:\n  replicas:\n    - hots: a\n", "database.replicas[0].hots means nothing"),
        ("database:\n  url: postgresql://x\n  primary: {host: y}\n", "say the same"),
        ("ovn:\n  northbound:\n    endpoints: []\n", "are wanted"),
        ("server:\n  host: ${NOWHERE}\n", "there is no variable NOWHERE"),
        ("server: {\n", "line 2: this is not YAML"),
        ("- a\n", "sections are wanted"),
    ],
)
def test_what_makes_no_sense_is_said(file: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(file(text), {}, {})
    assert said in str(raised.value)


def test_secrets_are_not_shown(file: Any) -> None:
    path = file("redis:\n  password: [hidden]\n")
    with pytest.raises(ConfigError) as raised:
        load(path, {}, {})
    assert "hidden" not in str(raised.value)
    loaded = load(None, {"REDIS_URL": "redis://:hidden@r", "DATABASE_URL": "postgresql://h@d"}, {})
    explained = config.explain(loaded)
    assert "hidden" not in explained and "h@d" not in explained
    assert "redis.url = (set)" in explained and "from REDIS_URL" in explained


def test_check_config_explains_every_setting(tmp_path: Path) -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [OVNCP, "check-config", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **env},
            check=False,
        )

    done = run(NODE_ID="n-7", OVN_NB_DB="tcp:10.1.1.1:6641,tcp:10.1.1.2:6641")
    assert done.returncode == 0, done.stderr
    assert "cluster.node_id = n-7" in done.stdout and "from NODE_ID" in done.stdout
    assert "tcp:10.1.1.1:6641,tcp:10.1.1.2:6641" in done.stdout
    for each in config.settings():
        assert f"{each.path} = " in done.stdout
    (tmp_path / "config.yaml").write_text("server:\n  nothing: 1\n")
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ovncp check-config: server.nothing means nothing")
    for bad, said in (("nonsense", "nonsense"), ("ptcp:1", "something to connect to")):
        (tmp_path / "config.yaml").unlink(missing_ok=True)
        done = run(f"--nb={bad}")
        assert done.returncode == 1 and said in done.stderr


PROMISED = """
    NODE_ID NODE_HOSTNAME NODE_IP NODE_PORT ENABLE_CLUSTERING CLUSTER_HEARTBEAT_INTERVAL
    CLUSTER_NODE_TIMEOUT REDIS_URL REDIS_CLUSTER_MODE REDIS_SENTINEL_MASTER REDIS_SENTINEL_NODES
    SESSION_STORE_TYPE SESSION_TTL SESSION_CLEANUP_INTERVAL OVN_MAX_CONNECTIONS
    DB_MAX_OPEN_CONNECTIONS DB_MAX_IDLE_CONNECTIONS REDIS_POOL_SIZE CACHE_TYPE CACHE_KEY_PREFIX
    DATABASE_URL
"""


def test_every_variable_that_is_promised_is_known() -> None:
    assert set(PROMISED.split()) <= {each.about["env"] for each in config.settings()}
