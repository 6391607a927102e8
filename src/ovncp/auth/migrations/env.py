"""What Alembic runs: the steps, on the connection that `auth.migration` gives it."""

from alembic import context

from ovncp.auth.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table="ovncp_migration",
    # SQLite cannot change a table's columns in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
