-- What made the triggers of a commit, once for each commit, on its first row: JSON, see daemon.store.trigger_log.
ALTER TABLE trigger ADD COLUMN origin TEXT;
-- The decision of the history that began the background pass of an audience.
ALTER TABLE audience ADD COLUMN evaluated_for INTEGER;
