-- +goose Up

-- When what still runs under the grant has to be over: its end, and what its
-- role lets it drain. Until then it is in the sets of its hosts.
ALTER TABLE grants ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;
UPDATE grants SET drained = not_after;
CREATE INDEX grants_drained ON grants (ended_at, drained);
