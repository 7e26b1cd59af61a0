-- state.db: all but the log. All times are microseconds since the epoch.

-- How far ingest has come, in the same transaction as its effects (P2).
CREATE TABLE lane_cursor (
    lane     TEXT PRIMARY KEY CHECK (lane IN ('realtime', 'bulk')),
    position INTEGER NOT NULL
) STRICT;
INSERT INTO lane_cursor (lane, position) VALUES ('realtime', 0), ('bulk', 0);

-- Every decision in the order in which it held (P10): batches taken (the last row is extended while nothing else
-- comes between), versions of definitions, settings of identity, erasures.
CREATE TABLE history (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN
        ('batch', 'query', 'query_deleted', 'audience', 'audience_deleted', 'rule', 'rule_deleted', 'identity',
         'split', 'erase')),
    body     TEXT NOT NULL                     -- JSON; batch: {"lane", "upto"}
) STRICT;

CREATE TABLE query (
    alias      TEXT PRIMARY KEY,
    text       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;

CREATE TABLE audience (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,        -- 32 hexadecimal digits, the id that clients see
    slug          TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL DEFAULT '',
    text          TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_us    INTEGER NOT NULL,
    updated_us    INTEGER NOT NULL,
    size          INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0),
    -- the background pass over existing profiles: null when done, else the last profile id evaluated
    evaluated_to  INTEGER,
    -- deleted for everybody; the row goes when the pass has taken its memberships away (its slug is free at once)
    deleted_us    INTEGER
) STRICT;

CREATE TABLE rule (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    priority   INTEGER NOT NULL DEFAULT 0,
    input      TEXT NOT NULL,
    output     TEXT NOT NULL,
    expression TEXT NOT NULL,
    active     INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;

CREATE TABLE profile (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL                         -- streams.profile: fields, keys, parts, meta, as JSON
) STRICT;

CREATE TABLE identity (
    field      TEXT NOT NULL,
    value      TEXT NOT NULL,
    profile_id INTEGER NOT NULL,
    PRIMARY KEY (field, value)
) STRICT, WITHOUT ROWID;

-- The earliest moment at which time alone could change a membership of the profile. May be too early, never too late.
CREATE TABLE timer (
    profile_id INTEGER PRIMARY KEY,
    due_us     INTEGER NOT NULL
) STRICT;
CREATE INDEX timer_due ON timer (due_us, profile_id);

-- A row from the first enter on; `sequence` counts the transitions of this profile and audience, odd means member.
CREATE TABLE membership (
    profile_id  INTEGER NOT NULL,
    audience    INTEGER NOT NULL,
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    trigger_id  INTEGER NOT NULL,              -- the trigger of the last transition
    changed_us  INTEGER NOT NULL,
    entered_us  INTEGER NOT NULL,
    member      INTEGER NOT NULL CHECK (member = sequence % 2),
    PRIMARY KEY (profile_id, audience)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_audience ON membership (audience, profile_id) WHERE member = 1;

-- The one trigger log. Rows of one commit and profile stand together: they make one message.
CREATE TABLE trigger (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    commit_id    INTEGER NOT NULL,             -- the id of the first trigger of the commit
    profile_id   INTEGER NOT NULL,
    audience     INTEGER NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('enter', 'exit')),
    sequence     INTEGER NOT NULL,
    at_us        INTEGER NOT NULL,
    entered_us   INTEGER NOT NULL,
    until_us     INTEGER,                      -- enter: when it would end by time alone; null: open
    cause        TEXT NOT NULL CHECK (cause IN ('event', 'time', 'definition', 'merge', 'erase', 'replay')),
    merged_into  INTEGER,                      -- exit of an absorbed profile
    profile_body TEXT                          -- the last fields of a profile that is no more
) STRICT;

-- The snapshot of a profile that is no more, for its triggers that are still to be delivered.
CREATE INDEX trigger_snapshot ON trigger (profile_id) WHERE profile_body IS NOT NULL;

CREATE TABLE token (
    id         TEXT PRIMARY KEY,               -- short public id
    hash       TEXT NOT NULL UNIQUE,           -- SHA-256 of the token, hexadecimal
    scope      TEXT NOT NULL CHECK (scope IN ('data', 'read', 'admin')),
    label      TEXT NOT NULL DEFAULT '',
    stream     TEXT,                           -- stream of Segment calls made with it; null: segment
    created_us INTEGER NOT NULL,
    revoked_us INTEGER
) STRICT;

CREATE TABLE job (
    id             TEXT PRIMARY KEY,
    job_type       TEXT NOT NULL,
    label          TEXT NOT NULL DEFAULT '',
    description    TEXT NOT NULL DEFAULT '',
    auth_id        TEXT,
    config         TEXT NOT NULL,              -- JSON, secrets by reference only
    state          TEXT NOT NULL CHECK (state IN ('running', 'sleeping', 'paused', 'failed', 'completed')),
    reason         TEXT NOT NULL DEFAULT '',   -- why, in words for its owner
    sleep_until_us INTEGER,
    sleep_cause    TEXT CHECK (sleep_cause IN ('schedule', 'error', 'retry_after')),
    errors         INTEGER NOT NULL DEFAULT 0, -- consecutive
    first_error_us INTEGER,                    -- of the consecutive ones
    crashes        INTEGER NOT NULL DEFAULT 0, -- runs ended by an exception that no connector declared, ever
    checkpoint     TEXT,                       -- JSON, the connector's own
    created_us     INTEGER NOT NULL,
    updated_us     INTEGER NOT NULL
) STRICT;

CREATE TABLE subscription (
    id               TEXT PRIMARY KEY,         -- 32 hexadecimal digits, as in meta.subscription_id
    job_id           TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    audiences        TEXT NOT NULL,            -- JSON array of audience numbers
    events           TEXT NOT NULL CHECK (events IN ('both', 'enters', 'exits')),
    position         INTEGER NOT NULL,         -- all triggers up to this id are done with
    backfill_trigger INTEGER,                  -- S: members as of this trigger id are sent; null: no backfill, or done
    backfill_profile INTEGER NOT NULL DEFAULT 0, -- how far the backfill has come
    -- what is done beyond the two cursors, JSON: {"live": [first trigger ids], "backfill": [profile ids]}
    ahead            TEXT NOT NULL DEFAULT '{}',
    added            INTEGER NOT NULL DEFAULT 0, -- enters delivered
    removed          INTEGER NOT NULL DEFAULT 0, -- exits delivered
    omitted          INTEGER NOT NULL DEFAULT 0, -- triggers that the destination refused for good
    failed           INTEGER NOT NULL DEFAULT 0, -- attempts that failed
    skipped          INTEGER NOT NULL DEFAULT 0, -- triggers given up by retention
    created_us       INTEGER NOT NULL,
    acked_us         INTEGER
) STRICT;
CREATE UNIQUE INDEX subscription_job ON subscription (job_id);
