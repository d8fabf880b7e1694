-- +goose Up

-- How far each target of the server's forward list has come: the last entry
-- that it took.
CREATE TABLE forwarded (
	target TEXT PRIMARY KEY,
	up_to  INTEGER NOT NULL
) STRICT;
