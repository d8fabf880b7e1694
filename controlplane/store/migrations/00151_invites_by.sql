-- +goose Up

-- Who made the code: it ends when she is disabled.
ALTER TABLE invites ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
