"""Users, tenants, keys and the audit trail, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text, update

from ovncp.auth.errors import BadValue, NoSuch, NotAllowed, Taken, TooManyTries
from ovncp.auth.principal import Identity, Role
from ovncp.auth.schema import API_KEY, IDEMPOTENCY, LOGIN, METADATA
from ovncp.auth.wanted import Wanted
from ovncp.cluster.rates import Limit

PASSWORD = "correct horse battery"

SOON = timedelta(hours=1)
THEN = datetime(2020, 1, 1, tzinfo=UTC)


def soon():
    return datetime.now(UTC) + SOON


async def test_the_migrations_make_the_tables_of_the_schema(accounts):
    def compare(connection):
        context = MigrationContext.configure(
            connection, opts={"version_table": "ovncp_migration", "compare_type": True}
        )
        return compare_metadata(context, METADATA)

    assert await accounts.database.read(lambda c: c.run_sync(compare)) == []


async def test_nodes_that_start_together_make_one_first_user(open_accounts, tmp_path):
    nodes = await asyncio.gather(*(open_accounts() for _ in range(4)))
    (said,) = [line for node in nodes for line in node.said]
    password = said.split()[-1]
    assert len(password) >= 20
    assert (await nodes[0].check("admin", password, "::1")).role == Role.ADMIN
    assert await nodes[0].check("admin", "admin", "::1") is None
    assert (await open_accounts()).said == []
    for file in tmp_path.glob("users.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


class TestUsers:
    async def test_they_are_created_found_changed_and_deleted(self, accounts):
        users = accounts.users
        one = await users.create("one", Role.OPERATOR, PASSWORD)
        two = await users.create("two", None, None)
        assert await users.get("one") == await users.get(one.id) == one
        assert [user.name for user in await users.all()] == ["admin", "one", "two"]
        before, after = await users.change("two", {"name": "deux", "role": Role.VIEWER})
        assert (before, after.name, after.role) == (two, "deux", Role.VIEWER)
        assert after.changed > before.changed
        assert await users.delete("deux") == after
        for call in (users.get("two"), users.change("two", {}), users.delete("deux")):
            with pytest.raises(NoSuch):
                await call

    async def test_names_are_taken_once_and_passwords_are_long(self, accounts):
        users = accounts.users
        await users.create("one", None, PASSWORD)
        await users.create("two", None, PASSWORD)
        with pytest.raises(Taken):
            await users.create("one", None, PASSWORD)
        with pytest.raises(Taken):
            await users.change("two", {"name": "one"})
        for name in ("", "a b", "é", "-x", "x" * 129):
            with pytest.raises(BadValue):
                await users.create(name, None, PASSWORD)
        for password in ("", "elevenchars", "x" * 257):
            with pytest.raises(BadValue):
                await users.create("three", None, password)
            with pytest.raises(BadValue):
                await users.change("two", {"password": password})

    async def test_the_last_administrator_stays(self, accounts):
        users = accounts.users
        for change in ({"role": Role.OPERATOR}, {"role": None}, {"is_active": False}):
            with pytest.raises(NotAllowed):
                await users.change("admin", change)
        with pytest.raises(NotAllowed):
            await users.delete("admin")
        await users.change("admin", {"role": Role.ADMIN})
        await users.create("other", Role.ADMIN, PASSWORD)
        results = await asyncio.gather(
            users.delete("admin"), users.delete("other"), return_exceptions=True
        )
        assert [type(result) for result in results].count(NotAllowed) == 1

    async def test_a_password_is_checked(self, accounts):
        await accounts.users.create("one", None, PASSWORD)
        await accounts.users.create("two", None, None)
        assert (await accounts.check("one", PASSWORD, "::1")).name == "one"
        for name, password in (("one", "wrong"), ("two", PASSWORD), ("no", PASSWORD), ("one", "")):
            assert await accounts.check(name, password, "::1") is None
        await accounts.users.change("one", {"is_active": False})
        assert await accounts.check("one", PASSWORD, "::1") is None

    async def test_failed_logins_are_limited_and_others_are_not(self, open_accounts):
        accounts = await open_accounts(login_limit=Limit(3, 60.0))
        await accounts.users.create("one", None, PASSWORD)
        for _ in range(5):
            assert await accounts.check("one", PASSWORD, "::1")
        for _ in range(3):
            assert await accounts.check("one", "wrong", "::1") is None
        for password in (PASSWORD, "wrong"):
            with pytest.raises(TooManyTries):
                await accounts.check("one", password, "::1")
        assert await accounts.check("one", PASSWORD, "::2")

    async def test_of_wrong_passwords_no_more_are_tried_at_once(self, open_accounts):
        accounts = await open_accounts(login_limit=Limit(3, 60.0), address_login_limit=Limit(5, 60))
        for user in ("one", "two"):
            await accounts.users.create(user, None, PASSWORD)

        async def n_tried(user, n=8):
            tries = (accounts.check(user, f"wrong {i}", "::1") for i in range(n))
            return (await asyncio.gather(*tries, return_exceptions=True)).count(None)

        assert (await n_tried("one"), await n_tried("two"), await n_tried("three")) == (3, 2, 0)

    async def test_who_comes_often_at_once_is_found_out_once(self, accounts, monkeypatch):
        user = await accounts.users.create("one", Role.VIEWER, PASSWORD)
        n_checked, check = 0, accounts.users.check

        async def counting(*given):
            nonlocal n_checked
            n_checked += 1
            return await check(*given)

        monkeypatch.setattr(accounts.users, "check", counting)

        def ask():
            return accounts.identity_by_password("one", PASSWORD, "::1")

        found = await asyncio.gather(*(ask() for _ in range(20)))
        assert {identity.id for identity in found} == {user.id} and n_checked == 1
        await accounts.changed()
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        await accounts.changed()  # Whatever it finds may be of before.
        await asking
        await ask()
        assert n_checked == 3


class TestTenants:
    async def test_they_are_created_described_and_deleted(self, accounts):
        tenants = accounts.tenants
        a = await tenants.create("a", "first")
        await tenants.create("b-2", "")
        assert [tenant.id for tenant in await tenants.all()] == ["a", "b-2"]
        before, after = await tenants.describe("a", "1st")
        assert (before, after.description) == (a, "1st")
        assert await tenants.delete("a") == after
        with pytest.raises(Taken):
            await tenants.create("b-2", "")
        for id in ("", "A", "a_b", "-a", "a-", "x" * 64):
            with pytest.raises(BadValue):
                await tenants.create(id, "")
        for call in (tenants.get("a"), tenants.delete("a"), tenants.describe("a", "")):
            with pytest.raises(NoSuch):
                await call

    async def test_members_have_one_role_in_each(self, accounts):
        tenants = accounts.tenants
        await tenants.create("a", "")
        await tenants.create("b", "")
        user = await accounts.users.create("one", None, PASSWORD)
        before, after = await tenants.put_member("a", "one", Role.VIEWER)
        assert before is None
        assert (await tenants.put_member("a", user.id, Role.ADMIN))[0] == after
        await tenants.put_member("b", "one", Role.VIEWER)
        (member,) = await tenants.members("a")
        assert (member.user, member.role) == ("one", Role.ADMIN)
        identity = await accounts.credentials.identity_of_user(user.id)
        assert identity == Identity(user.id, "one", None, {"a": Role.ADMIN, "b": Role.VIEWER})
        assert await tenants.remove_member("a", "one") == member
        await tenants.delete("b")
        assert (await accounts.credentials.identity_of_user(user.id)).tenants == {}
        for call in (
            tenants.remove_member("a", "one"),
            tenants.put_member("x", "one", Role.VIEWER),
            tenants.put_member("a", "nobody", Role.VIEWER),
            tenants.members("x"),
        ):
            with pytest.raises(NoSuch):
                await call

    async def test_those_who_change_one_at_once_take_turns(self, open_accounts):
        nodes = [await open_accounts() for _ in range(2)]
        tenants = [node.tenants for node in nodes]
        await tenants[0].create("a", "")
        user = await nodes[0].users.create("one", None, PASSWORD)
        await asyncio.gather(
            *(each.put_member("a", "one", role) for each in tenants for role in Role),
            *(each.set_quotas("a", {"switches": n}) for each in tenants for n in range(3)),
            *(each.set_roles(user.id, {"a": role, "x": role}) for each in tenants for role in Role),
        )
        assert [member.user for member in await tenants[0].members("a")] == ["one"]
        assert (await tenants[0].quotas("a")).keys() == {"switches"}

    async def test_quotas(self, accounts):
        await accounts.tenants.create("a", "")
        assert await accounts.quotas("a") == {}
        before, after = await accounts.tenants.set_quotas("a", {"switches": 3, "ports": 0})
        assert (before, after) == ({}, {"switches": 3, "ports": 0})
        assert await accounts.quotas("a") == {}
        await accounts.changed()
        assert await accounts.quotas("a") == after
        await accounts.tenants.set_quotas("a", {})
        assert await accounts.tenants.quotas("a") == {}
        with pytest.raises(BadValue):
            await accounts.tenants.set_quotas("a", {"switches": -1})
        with pytest.raises(NoSuch):
            await accounts.tenants.set_quotas("x", {})


@pytest.fixture
async def user(accounts):
    await accounts.tenants.create("a", "")
    await accounts.tenants.create("b", "")
    user = await accounts.users.create("one", Role.OPERATOR, PASSWORD)
    await accounts.tenants.put_member("a", "one", Role.ADMIN)
    return user


class TestCredentials:
    async def test_a_login_is_good_until_it_ends(self, accounts, user):
        token, expires = await accounts.log_in(user, "::1")
        assert expires > datetime.now(UTC)
        identity = await accounts.identity(token)
        assert identity == Identity(user.id, "one", Role.OPERATOR, {"a": Role.ADMIN})
        assert await accounts.identity(token[:-1]) is None
        await accounts.credentials.log_out(token)
        await accounts.changed()
        assert await accounts.identity(token) is None

    @pytest.mark.parametrize(
        "change", [{"is_active": False}, {"password": PASSWORD + "!"}, None], ids=str
    )
    async def test_a_user_who_changes_is_logged_out(self, accounts, user, change):
        token, _ = await accounts.log_in(user, "::1")
        assert await accounts.identity(token)
        if change is None:
            await accounts.users.delete("one")
        else:
            await accounts.users.change("one", change)
        await accounts.changed()
        assert await accounts.identity(token) is None

    async def test_a_key_is_less_than_its_user(self, accounts, user):
        async def identity(*limits):
            _, token = await accounts.credentials.create_key("one", "k", soon(), *limits)
            return await accounts.identity(token)

        def expected(role, **tenants):
            return Identity(user.id, "one", role, tenants, has_key=True)

        assert await identity() == expected(Role.OPERATOR, a=Role.ADMIN)
        assert await identity(Role.VIEWER) == expected(Role.VIEWER, a=Role.VIEWER)
        assert await identity(None, "a") == expected(None, a=Role.ADMIN)
        assert await identity(None, "b") == expected(None, b=Role.OPERATOR)
        scoped = await identity(Role.ADMIN, None, ["switches:read"])
        assert scoped.role == Role.OPERATOR
        assert scoped.scopes == {"switches:read"}

    async def test_keys_are_listed_ended_and_over(self, accounts, user):
        credentials = accounts.credentials
        first, token = await credentials.create_key("one", "first", soon())
        second, _ = await credentials.create_key(user.id, "second", soon(), Role.VIEWER, "a", [])
        assert await accounts.identity(token)
        keys = await credentials.keys("one")
        assert [key.name for key in keys] == ["first", "second"]
        assert keys[0].used is not None and keys[1] == second
        assert (await credentials.delete_key(first.id)).id == first.id
        await accounts.changed()
        assert await accounts.identity(token) is None
        for call in (credentials.delete_key(first.id), credentials.get_key(first.id)):
            with pytest.raises(NoSuch):
                await call
        _, token = await credentials.create_key("one", "third", soon())
        await expire(accounts, API_KEY)
        assert await accounts.identity(token) is None

    async def test_a_key_that_makes_no_sense_is_refused(self, accounts, user):
        create = accounts.credentials.create_key
        for call in (
            create("one", "", soon()),
            create("one", "x" * 129, soon()),
            create("one", "k", THEN),
            create("one", "k", soon(), None, None, ["switches"]),
            create("one", "k", soon(), None, None, ["switches:eat"]),
        ):
            with pytest.raises(BadValue):
                await call
        for call in (create("no", "k", soon()), create("one", "k", soon(), None, "x")):
            with pytest.raises(NoSuch):
                await call

    async def test_tokens_are_kept_as_hashes_alone(self, accounts, user, kind):
        _, key = await accounts.credentials.create_key("one", "k", soon())
        login, _ = await accounts.log_in(user, "::1")
        for table in METADATA.tables:
            rows = await accounts.database.read(
                lambda c, table=table: c.execute(text(f"SELECT * FROM {table}"))
            )
            stored = repr(rows.all())
            for secret in (key, login, PASSWORD):
                assert secret not in stored

    async def test_a_change_at_one_node_is_known_at_the_others(self, open_accounts):
        one, other = await open_accounts(), await open_accounts()
        for accounts in (one, other):
            await accounts.node.start()
        try:
            user = await one.users.create("one", Role.VIEWER, PASSWORD)
            token, _ = await one.log_in(user, "::1")
            assert (await other.identity(token)).role == Role.VIEWER
            await one.users.change("one", {"role": Role.ADMIN})
            assert (await other.identity(token)).role == Role.VIEWER
            await one.changed()
            async with asyncio.timeout(5):
                while (await other.identity(token)).role != Role.ADMIN:
                    await asyncio.sleep(0.01)
        finally:
            for accounts in (one, other):
                await accounts.node.close()


async def expire(accounts, table):
    """Has all of a table's rows be over."""
    await accounts.database.write(lambda c: c.execute(update(table).values(expires=THEN)))


class TestIdempotency:
    async def test_a_key_is_taken_answered_and_given_back(self, accounts):
        keys = accounts.keys
        assert await keys.take("u", "k", "f") is None
        assert await keys.take("v", "k", "f") is None
        under_way = await keys.take("u", "k", "f")
        assert (under_way.fingerprint, under_way.status) == ("f", None)
        await keys.keep("u", "k", 201, {"ETag": '"x"'}, b"\x00{}")
        known = await keys.take("u", "k", "g")
        assert (known.fingerprint, known.status, known.headers) == ("f", 201, {"ETag": '"x"'})
        assert known.body == b"\x00{}"
        await keys.give_back("v", "k")
        assert await keys.take("v", "k", "f") is None

    async def test_of_those_who_take_it_at_once_one_does(self, accounts):
        taken = await asyncio.gather(*(accounts.keys.take("u", "k", "f") for _ in range(8)))
        assert taken.count(None) == 1
        assert {answer.status for answer in taken if answer} == {None}

    async def test_one_that_is_over_is_free(self, accounts):
        await accounts.keys.take("u", "k", "f")
        await expire(accounts, IDEMPOTENCY)
        assert await accounts.keys.take("u", "k", "g") is None


def record(n=0, **others):
    return {
        "at": datetime.now(UTC),
        "principal_id": "1",
        "principal": "one",
        "tenant": None,
        "request_id": f"r{n}",
        "address": "::1",
        "action": "create",
        "resource": "switches",
        "target": f"{n}",
        "before": None,
        "after": {"n": n},
        "result": "done",
        **others,
    }


class TestTrail:
    async def test_records_are_kept_and_found(self, accounts):
        trail = accounts.trail
        await asyncio.gather(*(trail.keep([record(n), record(n)]) for n in range(50)))
        await trail.keep([record(99, tenant="a", principal="two", resource="ports", after=None)])
        found = await trail.read(Wanted(), 1000)
        assert len(found) == 101
        assert [r["id"] for r in found] == sorted((r["id"] for r in found), reverse=True)
        assert found[0]["after"] is None and found[1]["after"]["n"] in range(50)
        page = await trail.read(Wanted(before=found[9]["id"]), 10)
        assert page == found[10:20]
        for wanted, n in (
            (Wanted(tenant="a"), 1),
            (Wanted(principal="two"), 1),
            (Wanted(resource="switches"), 100),
            (Wanted(target="7"), 2),
            (Wanted(request_id="r7", tenant="a"), 0),
            (Wanted(since=datetime.now(UTC)), 0),
            (Wanted(until=datetime.now(UTC) + SOON), 101),
        ):
            assert len(await trail.read(wanted, 1000)) == n

    async def test_whatever_is_in_a_record_it_is_kept(self, accounts):
        odd = {"nul\0": "\0 é 😀", "long": "x" * 100_000, "\ud800"[:0]: [1.5, None, True]}
        await accounts.trail.keep([record(after=odd, target="x" * 9999 + "\0", principal="a\0b")])
        (found,) = await accounts.trail.read(Wanted(), 10)
        assert found["after"]["long"] == odd["long"]
        assert len(found["target"]) == 512

    async def test_one_that_cannot_be_kept_keeps_out_no_other(self, accounts, caplog):
        bad = record(1, at="yesterday")
        await accounts.trail.keep([record(0), bad, record(2)])
        assert [r["target"] for r in await accounts.trail.read(Wanted(), 10)] == ["2", "0"]
        assert "cannot be stored" in caplog.text


async def test_what_is_over_is_removed(accounts, user):
    await accounts.log_in(user, "::1")
    await accounts.credentials.create_key("one", "k", soon())
    await accounts.keys.take("u", "k", "f")
    await accounts.trail.keep([record(), record(at=THEN)])
    assert await accounts.sweep() == 1
    for table in (LOGIN, API_KEY, IDEMPOTENCY):
        await expire(accounts, table)
    assert await accounts.sweep() == 3
    assert await accounts.sweep() == 0
