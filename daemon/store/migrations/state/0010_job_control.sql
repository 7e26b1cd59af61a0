-- What a job is, beside its configuration: who made it, when it runs, and until when.
ALTER TABLE job ADD COLUMN owner TEXT NOT NULL DEFAULT '';        -- label of the token that made it
ALTER TABLE job ADD COLUMN schedule TEXT;                         -- JSON, as API.md has it; null: runs once, or all the time
ALTER TABLE job ADD COLUMN quiet TEXT;                            -- JSON, quiet hours
ALTER TABLE job ADD COLUMN expires_us INTEGER;                    -- from then on it is completed
ALTER TABLE job ADD COLUMN state_us INTEGER NOT NULL DEFAULT 0;   -- since when it is in its state; purging counts from here
ALTER TABLE job ADD COLUMN modified_us INTEGER NOT NULL DEFAULT 0; -- when its owner last changed it
ALTER TABLE job ADD COLUMN first_run_us INTEGER;                  -- a schedule's `every` counts from here
ALTER TABLE job ADD COLUMN run_us INTEGER;                        -- when the last run began
ALTER TABLE job ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;       -- runs begun, ever
UPDATE job SET state_us = updated_us, modified_us = created_us;
CREATE INDEX job_listed ON job (created_us, id);
CREATE INDEX job_of_auth ON job (auth_id) WHERE auth_id IS NOT NULL;
