"""The tables of users, tenants, keys and the audit trail, as SQLAlchemy has them.

`migrations` makes them; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Json = JSON().with_variant(JSONB(), "postgresql")
Counting = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime]):
    """A time, which SQLite keeps without its zone: always UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value  # type: ignore[no-any-return]
        return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


def _of(table: str) -> ForeignKey:
    return ForeignKey(f"{table}.id", ondelete="CASCADE")


USER = Table(
    "ovncp_user",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("password", String(256)),  # as argon2 has it; none if somebody else checks it
    Column("role", String(16)),  # over everything, if any
    Column("is_active", Boolean, nullable=False),
    Column("issuer", String(512)),  # who checks it, and by what name there
    Column("subject", String(255)),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Index("uq_ovncp_user_issuer_subject", "issuer", "subject", unique=True),
)

TENANT = Table(
    "ovncp_tenant",
    METADATA,
    Column("id", String(63), primary_key=True),
    Column("description", String(1024), nullable=False),
    Column("created", Moment, nullable=False),
)

MEMBER = Table(
    "ovncp_member",
    METADATA,
    Column("tenant_id", String(63), _of("ovncp_tenant"), primary_key=True),
    Column("user_id", String(36), _of("ovncp_user"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),
)

QUOTA = Table(
    "ovncp_quota",
    METADATA,
    Column("tenant_id", String(63), _of("ovncp_tenant"), primary_key=True),
    Column("resource", String(64), primary_key=True),
    Column("most", Integer, nullable=False),
)

LOGIN = Table(
    "ovncp_login",
    METADATA,
    Column("hash", String(64), primary_key=True),
    Column("user_id", String(36), _of("ovncp_user"), nullable=False, index=True),
    Column("address", String(64), nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
)

API_KEY = Table(
    "ovncp_api_key",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("user_id", String(36), _of("ovncp_user"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16)),  # at most
    Column("tenant_id", String(63), _of("ovncp_tenant")),  # alone
    Column("scopes", Json),  # a list, or null for all
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
    Column("used", Moment),
)

IDEMPOTENCY = Table(
    "ovncp_idempotency",
    METADATA,
    Column("principal_id", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),  # a hash of it
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer),  # of the answer; none while the request is under way
    Column("headers", Json),
    Column("body", LargeBinary),
    Column("expires", Moment, nullable=False, index=True),
)

AUDIT = Table(
    "ovncp_audit",
    METADATA,
    Column("id", Counting, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    Column("principal_id", String(64), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("tenant", String(63)),
    Column("request_id", String(128), nullable=False, index=True),
    Column("address", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("target", String(512), nullable=False),
    Column("before", Json),
    Column("after", Json),
    Column("result", String(64), nullable=False),
    Index("ix_ovncp_audit_at", "at"),
    Index("ix_ovncp_audit_tenant_id", "tenant", "id"),
    Index("ix_ovncp_audit_target", "target"),
)
