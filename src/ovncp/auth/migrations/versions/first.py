"""Users, tenants, quotas, logins, keys, requests made again, and the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_COUNTING = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def _of(name: str, table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{table}.id"], f"fk_{name}_{column}_{table}", ondelete="CASCADE"
    )


def _key(name: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{name}")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "ovncp_user",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("password", sa.String(256)),
        sa.Column("role", sa.String(16)),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("issuer", sa.String(512)),
        sa.Column("subject", sa.String(255)),
        sa.Column("created", _MOMENT, nullable=False),
        sa.Column("changed", _MOMENT, nullable=False),
        _key("ovncp_user", "id"),
        sa.UniqueConstraint("name", name="uq_ovncp_user_name"),
    )
    op.create_index(
        "uq_ovncp_user_issuer_subject", "ovncp_user", ["issuer", "subject"], unique=True
    )
    op.create_table(
        "ovncp_tenant",
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("description", sa.String(1024), nullable=False),
        sa.Column("created", _MOMENT, nullable=False),
        _key("ovncp_tenant", "id"),
    )
    op.create_table(
        "ovncp_member",
        sa.Column("tenant_id", sa.String(63), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        _key("ovncp_member", "tenant_id", "user_id"),
        _of("ovncp_member", "ovncp_tenant", "tenant_id"),
        _of("ovncp_member", "ovncp_user", "user_id"),
    )
    op.create_index("ix_ovncp_member_user_id", "ovncp_member", ["user_id"])
    op.create_table(
        "ovncp_quota",
        sa.Column("tenant_id", sa.String(63), nullable=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("most", sa.Integer, nullable=False),
        _key("ovncp_quota", "tenant_id", "resource"),
        _of("ovncp_quota", "ovncp_tenant", "tenant_id"),
    )
    op.create_table(
        "ovncp_login",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("created", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT, nullable=False),
        _key("ovncp_login", "hash"),
        _of("ovncp_login", "ovncp_user", "user_id"),
    )
    op.create_index("ix_ovncp_login_user_id", "ovncp_login", ["user_id"])
    op.create_index("ix_ovncp_login_expires", "ovncp_login", ["expires"])
    op.create_table(
        "ovncp_api_key",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("tenant_id", sa.String(63)),
        sa.Column("scopes", _JSON),
        sa.Column("created", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT, nullable=False),
        sa.Column("used", _MOMENT),
        _key("ovncp_api_key", "id"),
        sa.UniqueConstraint("hash", name="uq_ovncp_api_key_hash"),
        _of("ovncp_api_key", "ovncp_user", "user_id"),
        _of("ovncp_api_key", "ovncp_tenant", "tenant_id"),
    )
    op.create_index("ix_ovncp_api_key_user_id", "ovncp_api_key", ["user_id"])
    op.create_index("ix_ovncp_api_key_expires", "ovncp_api_key", ["expires"])
    op.create_table(
        "ovncp_idempotency",
        sa.Column("principal_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", _JSON),
        sa.Column("body", sa.LargeBinary),
        sa.Column("expires", _MOMENT, nullable=False),
        _key("ovncp_idempotency", "principal_id", "key"),
    )
    op.create_index("ix_ovncp_idempotency_expires", "ovncp_idempotency", ["expires"])
    op.create_table(
        "ovncp_audit",
        sa.Column("id", _COUNTING, autoincrement=True, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("principal_id", sa.String(64), nullable=False),
        sa.Column("principal", sa.String(128), nullable=False),
        sa.Column("tenant", sa.String(63)),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("target", sa.String(512), nullable=False),
        sa.Column("before", _JSON),
        sa.Column("after", _JSON),
        sa.Column("result", sa.String(64), nullable=False),
        _key("ovncp_audit", "id"),
    )
    op.create_index("ix_ovncp_audit_request_id", "ovncp_audit", ["request_id"])
    op.create_index("ix_ovncp_audit_at", "ovncp_audit", ["at"])
    op.create_index("ix_ovncp_audit_tenant_id", "ovncp_audit", ["tenant", "id"])
    op.create_index("ix_ovncp_audit_target", "ovncp_audit", ["target"])
