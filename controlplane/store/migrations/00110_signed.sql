-- What people's own keys signed, where a role asks for it, as canonical bytes of
-- grant.Assertion; and the versions of the roster of those keys, as they were signed.

-- +goose Up
ALTER TABLE requests ADD COLUMN word BLOB;
ALTER TABLE approvals ADD COLUMN word BLOB;
CREATE TABLE rosters (
	version  INTEGER PRIMARY KEY,
	envelope BLOB NOT NULL,
	at       INTEGER NOT NULL
) STRICT;
