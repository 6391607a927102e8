"""The tables in PostgreSQL, all of them in the schema `ovncp`, for any number of databases.

Each element of `MIGRATIONS` leads to the version of the tables that is its key, from the one before
it, and is never changed afterwards.  The versions before the first one here had a row for each
entry; nobody but their makers has such tables.
"""

MIGRATIONS = {
    4: """
    CREATE TABLE ovncp.migration (
        version integer PRIMARY KEY,
        made timestamptz NOT NULL DEFAULT now()
    );

    -- The next free index; the version grows with every write, and from one life of a database to
    -- the next. Written with every append, so that its page has room for that.
    CREATE TABLE ovncp.head (
        database text PRIMARY KEY,
        next_index bigint NOT NULL,
        version bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000,
        identity uuid NOT NULL DEFAULT gen_random_uuid()
    ) WITH (fillfactor = 10);

    -- The entries from an index on before the next one, a line each; where they are large, in the
    -- pieces of a stage.
    CREATE TABLE ovncp.batch (
        database text,
        index bigint,
        next_index bigint NOT NULL CHECK (next_index > index),
        writer text NOT NULL,
        data bytea NOT NULL,
        stage text,
        n_pieces integer NOT NULL,
        PRIMARY KEY (database, index)
    );
    -- Few have one.
    CREATE INDEX batch_stage ON ovncp.batch (database, stage) WHERE stage IS NOT NULL;

    -- The snapshot: its pieces are those of its stage, the data first and then the history.
    CREATE TABLE ovncp.snapshot (
        database text PRIMARY KEY,
        stage text NOT NULL,
        index bigint NOT NULL,
        writer text NOT NULL,
        schema bytea NOT NULL,
        n_data_pieces integer NOT NULL,
        n_history_pieces integer NOT NULL
    );

    CREATE TABLE ovncp.piece (
        database text,
        stage text,
        number integer,
        data bytea NOT NULL,
        staged timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (database, stage, number)
    );

    -- PostgreSQL's own way to compress takes longer than to store a batch as it is.
    DO $$ BEGIN
        ALTER TABLE ovncp.batch ALTER data SET COMPRESSION lz4;
        ALTER TABLE ovncp.piece ALTER data SET COMPRESSION lz4;
    EXCEPTION WHEN feature_not_supported THEN  -- built without LZ4
        ALTER TABLE ovncp.batch ALTER data SET STORAGE EXTERNAL;
    END $$;

    -- Never deleted, so that the tokens grow.
    CREATE TABLE ovncp.lease (
        database text,
        name text,
        holder text NOT NULL,
        token bigint NOT NULL,
        expires timestamptz NOT NULL,
        PRIMARY KEY (database, name)
    );

    -- What each server shows to the others, until its time is over.
    CREATE TABLE ovncp.notice (
        database text,
        name text,
        text bytea NOT NULL,
        expires timestamptz NOT NULL,
        PRIMARY KEY (database, name)
    );
    """,
    5: """
    -- Who waits for a lease, until its time is over.
    CREATE TABLE ovncp.place (
        database text,
        name text,
        holder text,
        number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        in_front boolean NOT NULL,
        expires timestamptz NOT NULL,
        PRIMARY KEY (database, name, holder)
    );
    """,
}
