-- events.db: the log. Two lanes, so that a bulk import never stands before what comes in now; positions grow and are
-- never used again (AUTOINCREMENT), because the cursor over them lives in another file. All times are microseconds
-- since the epoch.

CREATE TABLE event_realtime (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    stream      TEXT NOT NULL,
    event_us    INTEGER NOT NULL,              -- event time: _ts, timestamp_field, or the time of arrival
    event_id    TEXT,                          -- _id, where the sender gave one
    body        TEXT NOT NULL                  -- one JSON object, as accepted
) STRICT;

CREATE TABLE event_bulk (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    stream      TEXT NOT NULL,
    event_us    INTEGER NOT NULL,
    event_id    TEXT,
    body        TEXT NOT NULL
) STRICT;

-- Event ids within the deduplication window; written in the transaction of their events.
CREATE TABLE event_key (
    stream   TEXT NOT NULL,
    event_id TEXT NOT NULL,
    seen_us  INTEGER NOT NULL,
    PRIMARY KEY (stream, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_key_age ON event_key (seen_us);

-- What arrives, for people: counts and fields, flushed with the events about once a second.
CREATE TABLE stream (
    name        TEXT PRIMARY KEY,
    first_us    INTEGER NOT NULL,
    last_us     INTEGER NOT NULL,
    events      INTEGER NOT NULL DEFAULT 0,
    duplicates  INTEGER NOT NULL DEFAULT 0,
    rejects     INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Up to which position of each lane the counts above know the events; the rest is counted at the start.
CREATE TABLE stream_counted (
    lane     TEXT PRIMARY KEY CHECK (lane IN ('realtime', 'bulk')),
    position INTEGER NOT NULL
) STRICT;
INSERT INTO stream_counted (lane, position) VALUES ('realtime', 0), ('bulk', 0);
CREATE TABLE stream_field (
    stream   TEXT NOT NULL,
    field    TEXT NOT NULL,
    kind     TEXT NOT NULL,                    -- JSON kind first seen: string number bool list object null
    first_us INTEGER NOT NULL,
    last_us  INTEGER NOT NULL,
    PRIMARY KEY (stream, field)
) STRICT, WITHOUT ROWID;

-- What was refused, bounded by count and age.
CREATE TABLE reject (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us      INTEGER NOT NULL,
    stream     TEXT NOT NULL,
    place      TEXT NOT NULL,                  -- "index 3", "line 7"
    message    TEXT NOT NULL,
    sample     TEXT NOT NULL,                  -- at most 2,048 characters of what came
    request_id TEXT NOT NULL
) STRICT;
CREATE INDEX reject_stream ON reject (stream, id);
