"""The settings of `--limit`."""

import pytest

from ovncp.server.configuration import ConfigurationError
from ovncp.server.limits import NAMES, Limits


def test_some_are_set_and_the_others_are_not():
    limits = Limits.parse(["dumps=3", "backlog-bytes=1000", "dumps=4"])
    assert limits == Limits(dumps=4, backlog_bytes=1000)
    assert Limits.parse([]) == Limits()
    assert len(NAMES) == 5


@pytest.mark.parametrize("text", ["dumps", "dumps=", "dumps=0", "dumps=-1", "dumps=x", "x=1", ""])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(ConfigurationError) as refused:
        Limits.parse([text])
    assert "--limit" in str(refused.value)
