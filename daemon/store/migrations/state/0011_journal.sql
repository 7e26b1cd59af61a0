-- What jobs did, for their owners: logs, runs, activity, deliveries; what happened, for alerts; who changed what.
-- Nothing here refers to table job: what is told of a job outlives it, until it is too old.

CREATE TABLE job_log (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id  TEXT NOT NULL,
    run_id  TEXT,
    at_us   INTEGER NOT NULL,
    level   TEXT NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    code    TEXT NOT NULL,                     -- daemon.model.codes
    message TEXT NOT NULL,
    facts   TEXT NOT NULL DEFAULT '{}'         -- JSON
) STRICT;
CREATE INDEX job_log_job ON job_log (job_id, id);

CREATE TABLE job_run (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    began_us   INTEGER NOT NULL,
    ended_us   INTEGER,                        -- null: it goes on
    outcome    TEXT,
    reason     TEXT NOT NULL DEFAULT '',
    added      INTEGER NOT NULL DEFAULT 0,
    removed    INTEGER NOT NULL DEFAULT 0,
    omitted    INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    checkpoint TEXT                            -- JSON, as it was when the run ended
) STRICT;
CREATE UNIQUE INDEX job_run_of ON job_run (job_id, run_id);
CREATE INDEX job_run_job ON job_run (job_id, id);
CREATE INDEX job_run_open ON job_run (id) WHERE ended_us IS NULL;

-- Per hour and day, in UTC.
CREATE TABLE job_activity (
    job_id   TEXT NOT NULL,
    span     TEXT NOT NULL CHECK (span IN ('hour', 'day')),
    start_us INTEGER NOT NULL,
    added    INTEGER NOT NULL,
    removed  INTEGER NOT NULL,
    omitted  INTEGER NOT NULL,
    failed   INTEGER NOT NULL,
    PRIMARY KEY (job_id, span, start_us)
) STRICT, WITHOUT ROWID;

-- One row an attempt: of a batch, of a file. Its messages stand in delivery_message.
CREATE TABLE delivery (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id   TEXT NOT NULL,
    run_id   TEXT NOT NULL,
    at_us    INTEGER NOT NULL,
    outcome  TEXT NOT NULL CHECK (outcome IN ('delivered', 'omitted', 'failed')),
    attempt  INTEGER NOT NULL,                 -- within the run
    receiver TEXT NOT NULL,                    -- host, file
    bytes    INTEGER NOT NULL,
    status   INTEGER,                          -- of HTTP
    answer   TEXT NOT NULL,                    -- what the destination said, or the error
    messages INTEGER NOT NULL,
    again    INTEGER NOT NULL,                 -- messages that were asked for again
    sample   TEXT                              -- the first message, redacted
) STRICT;
CREATE INDEX delivery_job ON delivery (job_id, id);
CREATE INDEX delivery_troubled ON delivery (job_id, id) WHERE outcome <> 'delivered';

CREATE TABLE delivery_message (
    id         INTEGER PRIMARY KEY,
    delivery   INTEGER NOT NULL,
    profile_id INTEGER NOT NULL,
    first_id   INTEGER NOT NULL,               -- its trigger ids: the message's id, and the last
    last_id    INTEGER NOT NULL
) STRICT;
CREATE INDEX delivery_message_of ON delivery_message (delivery);
CREATE INDEX delivery_message_profile ON delivery_message (profile_id, id);

-- Messages that somebody asked for again; the row goes in the transaction that notes them as done.
CREATE TABLE redelivery (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    profile_id INTEGER NOT NULL,
    first_id   INTEGER NOT NULL,
    last_id    INTEGER NOT NULL,
    asked_us   INTEGER NOT NULL,
    UNIQUE (job_id, profile_id, first_id, last_id)
) STRICT;
CREATE INDEX redelivery_job ON redelivery (job_id, id);

CREATE TABLE system_event (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    uid        TEXT NOT NULL UNIQUE,           -- its id as an event
    at_us      INTEGER NOT NULL,
    subject    TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    verb       TEXT NOT NULL,
    body       TEXT NOT NULL,                  -- JSON
    forwarded  INTEGER NOT NULL DEFAULT 0 CHECK (forwarded IN (0, 1))
) STRICT;
CREATE INDEX system_event_waiting ON system_event (id) WHERE forwarded = 0;

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us       INTEGER NOT NULL,
    actor       TEXT NOT NULL,                 -- id of the token; control: over the control socket; local: beside
    actor_label TEXT NOT NULL,
    action      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    facts       TEXT NOT NULL DEFAULT '{}',    -- JSON, never a secret
    request_id  TEXT
) STRICT;
CREATE INDEX audit_subject ON audit (subject, id);
