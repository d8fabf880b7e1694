-- +goose Up

-- What entries are found by, beside their words; the next migration fills it
-- for those that are there.
ALTER TABLE entries ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN path TEXT NOT NULL DEFAULT '';

-- The first and the last entry that tells of each hour since 1970.
CREATE TABLE entry_hours (
	hour  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL,
	last  INTEGER NOT NULL
) STRICT;
