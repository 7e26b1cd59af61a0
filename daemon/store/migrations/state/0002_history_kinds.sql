-- More kinds of decisions. SQLite cannot change a CHECK, so the table is made anew; its numbers go on.
CREATE TABLE history_wider (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN
        ('batch', 'query', 'query_deleted', 'audience', 'audience_deleted', 'rule', 'rule_deleted', 'identity',
         'split', 'erase', 'merge_guard', 'rebuild', 'rebuilt', 'compaction', 'revert')),
    body     TEXT NOT NULL                     -- JSON; batch: {"lane", "upto"}
) STRICT;
INSERT INTO history_wider SELECT sequence, at_us, kind, body FROM history;
INSERT INTO sqlite_sequence (name, seq) SELECT 'history_wider', seq FROM sqlite_sequence WHERE name = 'history'
    AND NOT EXISTS (SELECT 1 FROM history_wider);
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'history')
    WHERE name = 'history_wider' AND EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'history');
DROP TABLE history;
ALTER TABLE history_wider RENAME TO history;
