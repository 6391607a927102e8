"""The tables in PostgreSQL, all of them in the schema `ovncp`, for any number of databases.

Each element of `MIGRATIONS` leads from one version of the tables to the next, and is never changed
afterwards.
"""

MIGRATIONS = (
    """
    CREATE TABLE ovncp.migration (
        version integer PRIMARY KEY,
        made timestamptz NOT NULL DEFAULT now()
    );

    -- The next free index; the version grows with every write, and from one life of a database to
    -- the next. Written with every append, so that its page has room for that.
    CREATE TABLE ovncp.head (
        database text PRIMARY KEY,
        next_index bigint NOT NULL,
        version bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000
    ) WITH (fillfactor = 10);

    -- One transaction, in several parts where it is very large.
    CREATE TABLE ovncp.entry (
        database text,
        index bigint,
        part integer,
        writer text NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (database, index, part)
    );

    -- The snapshot: its pieces are those of its id, the data first and then the history.
    CREATE TABLE ovncp.snapshot (
        database text PRIMARY KEY,
        id text NOT NULL,
        index bigint NOT NULL,
        writer text NOT NULL,
        schema bytea NOT NULL,
        n_data_pieces integer NOT NULL,
        n_history_pieces integer NOT NULL
    );

    CREATE TABLE ovncp.piece (
        database text,
        snapshot text,
        number integer,
        data bytea NOT NULL,
        staged timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (database, snapshot, number)
    );

    -- Never deleted, so that the tokens grow.
    CREATE TABLE ovncp.lease (
        database text,
        name text,
        holder text NOT NULL,
        token bigint NOT NULL,
        expires timestamptz NOT NULL,
        PRIMARY KEY (database, name)
    );
    """,
    """
    ALTER TABLE ovncp.head ADD COLUMN identity uuid NOT NULL DEFAULT gen_random_uuid();
    """,
    """
    -- What each server shows to the others, until its time is over.
    CREATE TABLE ovncp.notice (
        database text,
        name text,
        text bytea NOT NULL,
        expires timestamptz NOT NULL,
        PRIMARY KEY (database, name)
    );
    """,
)
