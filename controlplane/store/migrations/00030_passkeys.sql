-- +goose Up

CREATE TABLE passkeys (
	id       BLOB PRIMARY KEY,
	person   TEXT NOT NULL REFERENCES people,
	name     TEXT NOT NULL,
	body     BLOB NOT NULL, -- sealed
	added_at INTEGER NOT NULL,
	used_at  INTEGER NOT NULL DEFAULT 0,
	locked   INTEGER NOT NULL DEFAULT 0 CHECK (locked IN (0, 1))
) STRICT;
CREATE INDEX passkeys_person ON passkeys (person);

-- Browsers that are signed in. The id is the hash of what the browser holds.
CREATE TABLE web_sessions (
	id        TEXT PRIMARY KEY,
	person    TEXT NOT NULL REFERENCES people,
	browser   TEXT NOT NULL,
	begun_at  INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	proved_at INTEGER NOT NULL
) STRICT;
CREATE INDEX web_sessions_person ON web_sessions (person);

-- What is enrolled comes beside what the person has, and not in its place.
ALTER TABLE invites ADD COLUMN adds INTEGER NOT NULL DEFAULT 0 CHECK (adds IN (0, 1));
