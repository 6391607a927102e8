"""Who may do what, as one function decides it."""

from __future__ import annotations

import pytest

from ovncp.auth.decision import AREAS, action, allowed, is_scope
from ovncp.auth.principal import Identity, NotThere, Principal, Role

VIEWER, OPERATOR, ADMIN = Role

# Of each thing: who may read and write it: global roles, then a tenant's own, then another's.
TABLE = {
    "switches": ("vvv", "-oo", "vvv", "-oo"),
    "logical-flows": ("vvv", "-oo", "vvv", "-oo"),
    "db": ("vvv", "--a", "---", "---"),
    "me": ("vvv", "vvv", "vvv", "vvv"),
    "events": ("vvv", "vvv", "vvv", "vvv"),
    "users": ("--a", "--a", "---", "---"),
    "tenants": ("vvv", "--a", "---", "---"),
    "members": ("vvv", "--a", "vvv", "--a"),
    "quotas": ("vvv", "--a", "---", "---"),
    "own-quotas": ("vvv", "--a", "vvv", "--a"),
    "audit": ("--a", "--a", "--a", "--a"),
    "cluster": ("vvv", "--a", "---", "---"),
}


def test_the_table_has_every_area():
    assert set(AREAS) <= set(TABLE)


@pytest.mark.parametrize("thing", TABLE)
@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("tenant", [None, "t"])
def test_each_role_may_do_what_the_table_says(thing, changes, role, tenant):
    expected = TABLE[thing][changes + 2 * (tenant is not None)][role - 1] != "-"
    principal = Principal("1", "one", role, tenant)
    name = action(thing, changes=changes)
    assert allowed(principal, name, tenant).allowed == expected
    if tenant is not None:
        for others in ("u", None):
            assert not allowed(principal, name, others).allowed
    elif expected:
        for others in ("u", None):
            assert allowed(principal, name, others).allowed
    assert bool(allowed(principal, name, tenant).why) != expected


@pytest.mark.parametrize(
    ("scopes", "yes", "no"),
    [
        (["switches:read"], ["switches:read"], ["switches:write", "ports:read", "users:read"]),
        (["switches:*"], ["switches:read", "switches:write"], ["ports:read"]),
        (["*:read"], ["switches:read", "users:read"], ["switches:write"]),
        (["*:*"], ["switches:write", "users:write"], []),
        ([], [], ["switches:read"]),
        (["switches:read", "ports:write"], ["ports:write"], ["ports:read"]),
    ],
    ids=str,
)
def test_a_key_is_good_for_its_scopes_alone(scopes, yes, no):
    principal = Principal("1", "one", ADMIN, None, frozenset(scopes))
    assert all(allowed(principal, name).allowed for name in yes)
    assert not any(allowed(principal, name).allowed for name in no)
    weak = Principal("1", "one", VIEWER, None, frozenset(["*:*"]))
    assert not allowed(weak, "switches:write").allowed


def test_what_a_scope_looks_like():
    good = ("switches:read", "static-routes:*", "*:write", "*:*")
    bad = ("", "switches", "switches:", ":read", "switches:eat", "a b:read", "**:read")
    assert all(map(is_scope, good))
    assert not any(map(is_scope, bad))


class TestWhoSomebodyIsForOneRequest:
    def test_with_a_role_over_everything(self):
        one = Identity("1", "one", VIEWER, {"a": ADMIN, "b": VIEWER})
        assert one.acting(None) == Principal("1", "one", VIEWER, None)
        assert one.acting("a") == Principal("1", "one", ADMIN, "a")
        assert one.acting("c") == Principal("1", "one", VIEWER, "c")

    def test_with_one_tenant_it_need_not_be_named(self):
        one = Identity("1", "one", None, {"a": OPERATOR})
        assert one.acting(None) == one.acting("a") == Principal("1", "one", OPERATOR, "a")
        with pytest.raises(NotThere):
            one.acting("b")

    def test_with_several_it_has_to_be(self):
        one = Identity("1", "one", None, {"a": OPERATOR, "b": VIEWER})
        with pytest.raises(NotThere, match="a, b"):
            one.acting(None)
        assert one.acting("b").role == VIEWER

    def test_with_none_there_is_nothing(self):
        with pytest.raises(NotThere):
            Identity("1", "one", None).acting(None)

    def test_a_key_makes_no_more_of_anybody(self):
        one = Identity("1", "one", OPERATOR, {"a": ADMIN})
        for role in (None, *Role):
            for tenant in (None, "a", "b"):
                limited = one.limited(role, tenant, None)
                for asked in (None, "a", "b", "c"):
                    try:
                        is_now = limited.acting(asked)
                    except NotThere:
                        continue
                    might = one.acting(is_now.tenant)
                    assert is_now.role <= might.role
                    assert role is None or is_now.role <= role
                    assert tenant is None or is_now.tenant == tenant
        nobody = Identity("1", "one", None, {"a": ADMIN}).limited(None, "b", None)
        with pytest.raises(NotThere):
            nobody.acting("b")
