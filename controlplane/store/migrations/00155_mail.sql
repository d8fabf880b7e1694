-- +goose Up

-- Where a person is told what concerns her; empty: nowhere. A server from before
-- adds people without.
ALTER TABLE people ADD COLUMN email TEXT NOT NULL DEFAULT '';

-- What targets of the form mail are to tell people, each by herself, and have told.
CREATE TABLE mails (
	id      TEXT PRIMARY KEY, -- of the mail, in its header too
	target  TEXT NOT NULL,
	what    TEXT NOT NULL, -- the message; or that a request waits
	request TEXT NOT NULL, -- empty: of none
	person  TEXT NOT NULL REFERENCES people,
	at      INTEGER NOT NULL,
	subject TEXT NOT NULL,
	body    TEXT NOT NULL,
	done_at INTEGER NOT NULL DEFAULT 0, -- taken, or given up; 0: neither
	UNIQUE (target, what, request, person)
) STRICT;
CREATE INDEX mails_open ON mails (target) WHERE done_at = 0;
