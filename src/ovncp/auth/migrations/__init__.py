"""The tables of `auth.schema` as they came about, step by step, for Alembic."""
