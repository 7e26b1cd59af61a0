-- How far each import has come, written in the transaction of its rows: neither is there without the other.
CREATE TABLE import_checkpoint (
    job_id     TEXT PRIMARY KEY,
    checkpoint TEXT NOT NULL,                  -- JSON, the connector's own
    updated_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
