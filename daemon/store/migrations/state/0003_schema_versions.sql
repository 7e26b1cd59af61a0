-- Versions of the schema are the decisions that changed the queries: found without reading past all batches.
CREATE INDEX history_schema ON history (sequence) WHERE kind IN ('query', 'query_deleted', 'revert');
