-- +goose Up

-- That somebody may approve in another's place, while that one is away.
CREATE TABLE delegations (
	id       TEXT PRIMARY KEY,
	away     TEXT NOT NULL REFERENCES people, -- in whose place
	stand_in TEXT NOT NULL REFERENCES people, -- who may
	from_at  INTEGER NOT NULL,
	until_at INTEGER NOT NULL, -- excluded
	note     TEXT NOT NULL,
	factor   TEXT NOT NULL, -- that she who is away proved herself with
	made_at  INTEGER NOT NULL,
	ended_at INTEGER NOT NULL DEFAULT 0, -- before its time; 0: it was not
	ended_by TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX delegations_until ON delegations (until_at);

-- Whose word an approval is, if it is not that of who gave it.
ALTER TABLE approvals ADD COLUMN in_place_of TEXT NOT NULL DEFAULT '';
