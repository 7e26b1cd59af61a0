-- Queries that were applied to the past (`cohortd replay --query`): at most one at a time.
CREATE TABLE rebuild (
    id            INTEGER PRIMARY KEY,         -- the decision that began it; the generation of the states that it makes
    alias         TEXT NOT NULL,
    version       INTEGER NOT NULL,
    fields        TEXT NOT NULL,               -- JSON array: what is made again
    realtime_to   INTEGER NOT NULL,            -- the past: all positions up to here
    bulk_to       INTEGER NOT NULL,
    realtime_at   INTEGER NOT NULL,            -- how far it has come
    bulk_at       INTEGER NOT NULL,
    events        INTEGER NOT NULL DEFAULT 0,  -- events that fed one of the fields
    lost          INTEGER NOT NULL,            -- events of the past that the log did not have any more
    state         TEXT NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
    begun_us      INTEGER NOT NULL,
    ended_us      INTEGER
) STRICT;
CREATE UNIQUE INDEX rebuild_running ON rebuild (state) WHERE state = 'running';
