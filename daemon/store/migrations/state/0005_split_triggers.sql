-- Triggers whose cause is a split. SQLite cannot change a CHECK, so the table is made anew; its numbers go on.
CREATE TABLE trigger_wider (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    commit_id    INTEGER NOT NULL,             -- the id of the first trigger of the commit
    profile_id   INTEGER NOT NULL,
    audience     INTEGER NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('enter', 'exit')),
    sequence     INTEGER NOT NULL,
    at_us        INTEGER NOT NULL,
    entered_us   INTEGER NOT NULL,
    until_us     INTEGER,                      -- enter: when it would end by time alone; null: open
    cause        TEXT NOT NULL CHECK (cause IN
        ('event', 'time', 'definition', 'merge', 'split', 'erase', 'replay')),
    merged_into  INTEGER,                      -- exit of an absorbed profile
    profile_body TEXT                          -- the last fields of a profile that is no more
) STRICT;
INSERT INTO trigger_wider SELECT * FROM trigger;
INSERT INTO sqlite_sequence (name, seq) SELECT 'trigger_wider', seq FROM sqlite_sequence WHERE name = 'trigger'
    AND NOT EXISTS (SELECT 1 FROM trigger_wider);
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'trigger')
    WHERE name = 'trigger_wider' AND EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'trigger');
DROP TABLE trigger;
ALTER TABLE trigger_wider RENAME TO trigger;
CREATE INDEX trigger_snapshot ON trigger (profile_id) WHERE profile_body IS NOT NULL;
