-- +goose Up

-- The newest seal of each host, which the next has to go on from.
CREATE TABLE host_seals (
	host     TEXT NOT NULL PRIMARY KEY REFERENCES hosts,
	host_key BLOB NOT NULL, -- that signed it
	outbox   TEXT NOT NULL,
	seq      INTEGER NOT NULL, -- of the entry that carries it
	number   INTEGER NOT NULL,
	digest   BLOB NOT NULL
) STRICT;

-- What the files of a recording take; 0: it was not counted yet.
ALTER TABLE terminals ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
