-- Authorizations. Times in microseconds since the epoch.
CREATE TABLE auth (
    id          TEXT PRIMARY KEY,              -- 32 hexadecimal digits
    provider    TEXT NOT NULL,
    method      TEXT NOT NULL,
    label       TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    config      TEXT NOT NULL,                 -- JSON, the fields that are no secrets
    owner       TEXT NOT NULL DEFAULT '',      -- the token that made it
    status      TEXT NOT NULL CHECK (status IN ('healthy', 'unhealthy', 'unknown')),
    reason      TEXT NOT NULL DEFAULT '',      -- why, in the provider's words
    status_us   INTEGER NOT NULL,              -- since when
    checked_us  INTEGER,                       -- when it was last found out, by a check or by a run
    due_us      INTEGER NOT NULL,              -- when it is to be checked
    used_us     INTEGER,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL               -- when its owner last changed it
) STRICT;
CREATE INDEX auth_listed ON auth (created_us, id);
CREATE INDEX auth_due ON auth (due_us);

-- A secret field: sealed (see daemon.vault), or where it is found when it is used.
CREATE TABLE auth_secret (
    auth_id   TEXT NOT NULL REFERENCES auth (id) ON DELETE CASCADE,
    field     TEXT NOT NULL,                   -- name, or name/key of a mapping
    key_id    TEXT,
    sealed    BLOB,
    reference TEXT,
    PRIMARY KEY (auth_id, field),
    CONSTRAINT sealed_or_by_reference CHECK (
        (reference IS NULL AND key_id IS NOT NULL AND sealed IS NOT NULL)
        OR (reference IS NOT NULL AND key_id IS NULL AND sealed IS NULL)
    )
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_secret_key ON auth_secret (key_id) WHERE key_id IS NOT NULL;

-- API requests made with an authorization.
CREATE TABLE auth_count (
    auth_id  TEXT NOT NULL REFERENCES auth (id) ON DELETE CASCADE,
    unit     TEXT NOT NULL CHECK (unit IN ('hour', 'day', 'week')),
    start_us INTEGER NOT NULL,                 -- UTC; weeks begin on Monday
    requests INTEGER NOT NULL,
    PRIMARY KEY (auth_id, unit, start_us)
) STRICT, WITHOUT ROWID;
