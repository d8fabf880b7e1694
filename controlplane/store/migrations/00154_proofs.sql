-- +goose Up

-- What people proved themselves with last, on each session, for a call on whose
-- proof a later request may stand. A server from before writes none, and ends
-- sessions without these rows: one counts only while its session stands, and while
-- its person's factors are those that she had.
CREATE TABLE proofs (
	session TEXT PRIMARY KEY,
	at      INTEGER NOT NULL,
	factor  TEXT NOT NULL,
	what    TEXT NOT NULL, -- the call: request, extension, approval
	network TEXT NOT NULL, -- that it came from; empty: not known
	factors BLOB NOT NULL, -- digest of all that its person could prove herself with
	used    INTEGER NOT NULL DEFAULT 0 -- requests that stand on it
) STRICT;
