"""Locations of logs on engines: parsed, shown without secrets, refused when they make no sense."""

from __future__ import annotations

import pytest

from ovncp.log.base import LogError
from ovncp.log.location import Location
from ovncp.log.registry import engine, open_log

FULL = "etcds://us%40er:p%2Fw@h1:2379,[::1]:2379/a%20b/c?db=OVN_Northbound&ca=/etc/ca.pem"


def test_a_location_is_parsed_and_written_back():
    location = Location.parse(FULL, ["ca"])
    assert (location.scheme, location.user, location.password) == ("etcds", "us@er", "p/w")
    assert location.hosts == ("h1:2379", "[::1]:2379")
    assert (location.path, location.database) == ("a b/c", "OVN_Northbound")
    assert location.url() == FULL
    assert Location.parse(location.url()) == location


def test_a_password_is_not_shown():
    location = Location.parse(FULL)
    assert "p/w" not in repr(location) and "p%2Fw" not in str(location)
    assert str(location) == FULL.replace("us%40er:p%2Fw@", "")


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("etcd://h/x?db=", "db=NAME is missing"),
        ("etcd:///x?db=T", "host is missing"),
        ("etcd://h1,,h2/x?db=T", "host is missing"),
        ("etcd://h/x?db=T&tiemout_ms=3", "'tiemout_ms'; there are: db, keep_mb, keep_s, timeout"),
        ("etcd://h/x?db=T&timeout_ms=-1", "not a positive number of milliseconds"),
        ("etcd://h/x?db=T&timeout_ms=soon", "not a positive number of milliseconds"),
        ("etcd://h/x?db=T&keep_s=1h", "keep_s=1h is not a number"),
        ("etcd://h/x?db=T&keep_mb=", "keep_mb= is not a number"),
        ("etcd://h/x?db", "not a location"),
        ("etcd://h/x", "not a location"),
    ],
)
def test_what_makes_no_sense_is_refused(location, why):
    with pytest.raises(LogError, match=why):
        Location.parse(location, ["timeout_ms"]).milliseconds("timeout_ms", 1)


async def test_schemes_that_are_unknown_or_need_more():
    with pytest.raises(LogError, match=r"no log engine 'nosuch'; there are: .*etcd.*file"):
        await open_log("nosuch://h/x?db=T")
    with pytest.raises(LogError, match="are for etcds://"):
        await open_log("etcd://h/x?db=T&ca=/etc/ca.pem")
    with pytest.raises(LogError, match="cannot be read"):
        await open_log("etcds://h/x?db=T&ca=/nonexistent/ca.pem")
    with pytest.raises(LogError, match="Connect call failed"):
        await engine("postgresql://h").open("postgresql://127.0.0.1:1/x?db=T&timeout_ms=100")
