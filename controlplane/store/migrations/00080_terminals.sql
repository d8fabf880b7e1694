-- +goose Up

-- Recordings of terminals. What they show lies in files, each named by its
-- digest; here is what hosts signed of them.
CREATE TABLE terminals (
	host     TEXT NOT NULL REFERENCES hosts,
	id       TEXT NOT NULL,
	session  TEXT NOT NULL, -- the label, in hex
	grant_id TEXT NOT NULL REFERENCES grants,
	person   TEXT NOT NULL,
	started  INTEGER NOT NULL,
	seen     INTEGER NOT NULL, -- when its last segment was sealed
	ended    INTEGER NOT NULL DEFAULT 0,
	why      TEXT NOT NULL DEFAULT '',
	segments INTEGER NOT NULL DEFAULT 0,
	bytes    INTEGER NOT NULL DEFAULT 0,
	lost     INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (host, id)
) STRICT;
CREATE INDEX terminals_grant ON terminals (grant_id);
CREATE INDEX terminals_started ON terminals (started);

CREATE TABLE terminal_segments (
	host      TEXT NOT NULL,
	terminal  TEXT NOT NULL,
	number    INTEGER NOT NULL,
	digest    BLOB NOT NULL, -- empty: the statement on the end
	statement BLOB NOT NULL,
	host_key  BLOB NOT NULL CHECK (length(host_key) = 32), -- that signed it
	PRIMARY KEY (host, terminal, number),
	FOREIGN KEY (host, terminal) REFERENCES terminals
) STRICT;

-- Sessions that somebody ended, for their hosts to end.
CREATE TABLE ended_sessions (
	host     TEXT NOT NULL REFERENCES hosts,
	session  TEXT NOT NULL,
	ended_by TEXT NOT NULL,
	at       INTEGER NOT NULL,
	PRIMARY KEY (host, session)
) STRICT;
