-- +goose Up

-- The network that a request came from; empty: not known, as of all that was asked
-- before.
ALTER TABLE requests ADD COLUMN network TEXT NOT NULL DEFAULT '';
CREATE INDEX requests_network ON requests (person, network);
CREATE INDEX grants_person_role ON grants (person, role);

-- Codes and passkeys of a person's that were wrong.
CREATE TABLE refused_factors (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	person TEXT NOT NULL REFERENCES people,
	at     INTEGER NOT NULL
) STRICT;
CREATE INDEX refused_factors_person ON refused_factors (person, at);

-- When a code's secret was enrolled. A server from before changes totp alone: what
-- is said here of another secret counts for nothing. Until now one was enrolled,
-- each time, with a device.
CREATE TABLE totp_enrolled (
	person   TEXT PRIMARY KEY REFERENCES people,
	secret   BLOB NOT NULL, -- sealed, as in totp
	added_at INTEGER NOT NULL
) STRICT;
INSERT INTO totp_enrolled SELECT t.person, t.secret, max(d.added_at) FROM totp t JOIN devices d ON d.person = t.person GROUP BY t.person, t.secret;
