-- +goose Up

-- What a recording shows is deleted when the retention of its role says so: 1
-- while its files are to be deleted, 2 when they are gone.
ALTER TABLE terminals ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;
CREATE INDEX terminals_erased ON terminals (erased);
