-- What keeps a bad client from merging a user base: values that identify nobody, and limits of stitching.
CREATE TABLE merge_guard (
    id         INTEGER PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('value', 'stitches')),
    field      TEXT,                           -- null: every identity
    value      TEXT,                           -- kind value
    glob       INTEGER NOT NULL DEFAULT 0 CHECK (glob IN (0, 1)),
    to_field   TEXT,                           -- kind stitches; null: its own field and every stronger one
    stitches   INTEGER CHECK (stitches >= 0),  -- 0: no limit
    window_us  INTEGER CHECK (window_us >= 0),
    note       TEXT NOT NULL DEFAULT '',
    created_us INTEGER NOT NULL,
    CHECK (CASE kind WHEN 'value' THEN value IS NOT NULL
        ELSE field IS NOT NULL AND stitches IS NOT NULL AND window_us IS NOT NULL END)
) STRICT;
