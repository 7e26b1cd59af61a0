-- People who were erased: the work in the log that is left, and the keys that must not come back.

-- What keyed hashes are made with, and how many events were turned away.
CREATE TABLE erasing (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    salt        BLOB NOT NULL,
    turned_away INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO erasing (id, salt) VALUES (1, randomblob(32));

CREATE TABLE erasure (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    state         TEXT NOT NULL CHECK (state IN ('scrubbing', 'delivering', 'cleaning', 'done')),
    accepted_us   INTEGER NOT NULL,
    finished_us   INTEGER,
    allow_return  INTEGER NOT NULL CHECK (allow_return IN (0, 1)),
    admitted_us   INTEGER,                     -- when the person was let in again
    keys          TEXT,                        -- JSON [[field, value], …] while the log is searched; then null
    profiles      TEXT NOT NULL,               -- JSON: the profile, and those that it had taken in
    last_trigger  INTEGER NOT NULL,            -- its exits are up to here
    history       INTEGER NOT NULL,            -- its decision
    taken         TEXT NOT NULL,               -- JSON by lane: what ingest had taken in by then
    head          TEXT NOT NULL,               -- JSON by lane: what was in the log by then
    looked        TEXT NOT NULL,               -- JSON by lane: how far the log is searched
    events_looked INTEGER NOT NULL DEFAULT 0,
    scrubbed      INTEGER NOT NULL DEFAULT 0,  -- events that were the person's alone
    cut           INTEGER NOT NULL DEFAULT 0,  -- events of others, without what was the person's
    kept          INTEGER NOT NULL DEFAULT 0,  -- of those: what is left still names the person
    rejects       INTEGER NOT NULL DEFAULT 0,
    snapshots     INTEGER NOT NULL DEFAULT 0   -- last fields of triggers, forgotten
) STRICT;
CREATE INDEX erasure_open ON erasure (id) WHERE state <> 'done';

-- Keys that nobody may have: for ever, or (both set) in events up to these positions.
CREATE TABLE tombstone (
    hash     BLOB PRIMARY KEY,
    erasure  INTEGER NOT NULL,
    realtime INTEGER,
    bulk     INTEGER,
    CHECK ((realtime IS NULL) = (bulk IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_erasure ON tombstone (erasure);

-- Events that are to be scrubbed; what stands in a row is done again after a crash, to the same end.
CREATE TABLE erased_event (
    lane     TEXT NOT NULL CHECK (lane IN ('realtime', 'bulk')),
    position INTEGER NOT NULL,
    body     TEXT,                             -- what is left of it; null: nothing; 'without …': to be worked out
    PRIMARY KEY (lane, position)
) STRICT, WITHOUT ROWID;

-- Of events of others that named the person: for each contribution the keys that were refused, as hashes. For the replay.
CREATE TABLE erased_refusal (
    lane     TEXT NOT NULL CHECK (lane IN ('realtime', 'bulk')),
    position INTEGER NOT NULL,
    erasure  INTEGER NOT NULL,
    refused  TEXT NOT NULL,                    -- JSON [[home, [[field, mark, reason], …]], …]
    PRIMARY KEY (lane, position, erasure)
) STRICT, WITHOUT ROWID;
