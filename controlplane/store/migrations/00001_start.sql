-- Instants are nanoseconds since 1970 UTC; 0 stands for none. Lists and maps
-- are JSON.

-- +goose Up

CREATE TABLE people (
	name      TEXT PRIMARY KEY,
	full_name TEXT NOT NULL,
	uid       INTEGER NOT NULL UNIQUE CHECK (uid BETWEEN 70000 AND 524287),
	admin     INTEGER NOT NULL CHECK (admin IN (0, 1)),
	disabled  INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1))
) STRICT;

-- A uid is never given again, so a person is never forgotten.
-- +goose StatementBegin
CREATE TRIGGER people_stay BEFORE DELETE ON people BEGIN
	SELECT RAISE(ABORT, 'people are disabled, not deleted');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER people_keep_uids BEFORE UPDATE OF name, uid ON people BEGIN
	SELECT RAISE(ABORT, 'a name and its uid stay together');
END;
-- +goose StatementEnd

CREATE TABLE totp (
	person   TEXT PRIMARY KEY REFERENCES people,
	secret   BLOB NOT NULL, -- sealed
	step     INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	retry_at INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
	key      BLOB PRIMARY KEY CHECK (length(key) = 32),
	person   TEXT NOT NULL REFERENCES people,
	name     TEXT NOT NULL,
	added_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
	id      TEXT PRIMARY KEY,
	person  TEXT NOT NULL REFERENCES people,
	device  BLOB NOT NULL REFERENCES devices ON DELETE CASCADE,
	expires INTEGER NOT NULL
) STRICT;

CREATE TABLE nonces (
	session TEXT NOT NULL,
	nonce   TEXT NOT NULL,
	until   INTEGER NOT NULL,
	PRIMARY KEY (session, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_until ON nonces (until);

CREATE TABLE invites (
	hash     BLOB PRIMARY KEY CHECK (length(hash) = 32),
	person   TEXT NOT NULL REFERENCES people,
	expires  INTEGER NOT NULL,
	secret   BLOB NOT NULL, -- of the factor shown; sealed
	failures INTEGER NOT NULL,
	retry_at INTEGER NOT NULL,
	device   BLOB NOT NULL
) STRICT;

CREATE TABLE join_tokens (
	hash    BLOB PRIMARY KEY CHECK (length(hash) = 32),
	host    TEXT NOT NULL,
	labels  TEXT NOT NULL,
	expires INTEGER NOT NULL,
	by      TEXT NOT NULL,
	used_at INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE hosts (
	name           TEXT PRIMARY KEY,
	labels         TEXT NOT NULL,
	addresses      TEXT NOT NULL,
	ssh_host_keys  TEXT NOT NULL,
	receipt_key    BLOB NOT NULL CHECK (length(receipt_key) = 32),
	identity       TEXT NOT NULL UNIQUE,
	enrolled_at    INTEGER NOT NULL,
	fresh_at       INTEGER NOT NULL, -- grants issued before were for another host of this name
	decommissioned INTEGER NOT NULL DEFAULT 0 CHECK (decommissioned IN (0, 1)),
	seen           INTEGER NOT NULL DEFAULT 0,
	agent_version  TEXT NOT NULL DEFAULT '',
	mode           TEXT NOT NULL DEFAULT '',
	boot           TEXT NOT NULL DEFAULT '',
	applied        INTEGER NOT NULL DEFAULT 0,
	refused        TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE keyrings (
	version  INTEGER PRIMARY KEY,
	envelope BLOB NOT NULL
) STRICT;

-- The same revision is the same bytes, for ever.
CREATE TABLE host_sets (
	host       TEXT NOT NULL REFERENCES hosts,
	revision   INTEGER NOT NULL,
	envelope   BLOB NOT NULL,
	at         INTEGER NOT NULL,
	applied_at INTEGER NOT NULL DEFAULT 0, -- the host said that it holds it, or a later one
	PRIMARY KEY (host, revision)
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER host_sets_stay BEFORE UPDATE OF host, revision, envelope, at ON host_sets BEGIN
	SELECT RAISE(ABORT, 'a revision is signed once');
END;
-- +goose StatementEnd

CREATE TABLE requests (
	id            TEXT PRIMARY KEY,
	person        TEXT NOT NULL REFERENCES people,
	key           TEXT NOT NULL, -- chosen by the caller
	state         TEXT NOT NULL,
	body          TEXT NOT NULL, -- the rest of what was asked
	digest        BLOB NOT NULL CHECK (length(digest) = 32),
	asked_at      INTEGER NOT NULL,
	lapses_at     INTEGER NOT NULL,
	decided_by    TEXT NOT NULL DEFAULT '',
	decision_note TEXT NOT NULL DEFAULT '',
	changed_at    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX requests_key ON requests (person, key) WHERE key <> '';
CREATE INDEX requests_state ON requests (state, asked_at);
CREATE INDEX requests_person ON requests (person, asked_at);

CREATE TABLE request_hosts (
	request TEXT NOT NULL REFERENCES requests,
	host    TEXT NOT NULL REFERENCES hosts,
	PRIMARY KEY (request, host)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_hosts_host ON request_hosts (host);

CREATE TABLE approvals (
	request TEXT NOT NULL REFERENCES requests,
	person  TEXT NOT NULL REFERENCES people,
	factor  TEXT NOT NULL,
	at      INTEGER NOT NULL,
	note    TEXT NOT NULL,
	PRIMARY KEY (request, person)
) STRICT;

CREATE TABLE grants (
	id         TEXT PRIMARY KEY,
	request    TEXT NOT NULL UNIQUE REFERENCES requests,
	person     TEXT NOT NULL REFERENCES people,
	role       TEXT NOT NULL,
	not_before INTEGER NOT NULL,
	not_after  INTEGER NOT NULL,
	payload    BLOB NOT NULL,
	envelope   BLOB NOT NULL,
	issued_at  INTEGER NOT NULL,
	ended_at   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX grants_live ON grants (ended_at, not_after);
CREATE INDEX grants_person ON grants (person);
-- +goose StatementBegin
CREATE TRIGGER grants_stay BEFORE UPDATE OF id, request, person, role, not_before, not_after, payload, issued_at ON grants BEGIN
	SELECT RAISE(ABORT, 'a grant is never edited');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER grants_end_once BEFORE UPDATE OF ended_at ON grants WHEN OLD.ended_at <> 0 BEGIN
	SELECT RAISE(ABORT, 'a grant ends once');
END;
-- +goose StatementEnd

-- controlplane/request has the same table, and a test compares them.
CREATE TABLE request_moves (
	was TEXT NOT NULL,
	now TEXT NOT NULL,
	PRIMARY KEY (was, now)
) STRICT, WITHOUT ROWID;
INSERT INTO request_moves VALUES
	('asked', 'issued'),
	('asked', 'denied'),
	('asked', 'withdrawn'),
	('asked', 'lapsed'),
	('issued', 'ended'),
	('issued', 'revoked');

-- +goose StatementBegin
CREATE TRIGGER requests_begin BEFORE INSERT ON requests WHEN NEW.state <> 'asked' BEGIN
	SELECT RAISE(ABORT, 'a request begins as asked');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER requests_move BEFORE UPDATE OF state ON requests
WHEN NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM request_moves WHERE was = OLD.state AND now = NEW.state) BEGIN
	SELECT RAISE(ABORT, 'a request does not move that way');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER requests_issue BEFORE UPDATE OF state ON requests
WHEN NEW.state = 'issued' AND NOT EXISTS (SELECT 1 FROM grants WHERE request = NEW.id) BEGIN
	SELECT RAISE(ABORT, 'a request is issued with its grant');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER requests_stay BEFORE UPDATE OF id, person, key, body, digest, asked_at ON requests BEGIN
	SELECT RAISE(ABORT, 'what was asked is never edited');
END;
-- +goose StatementEnd

-- What people and the control plane did, for timelines.
CREATE TABLE decisions (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	request TEXT NOT NULL REFERENCES requests,
	at      INTEGER NOT NULL,
	what    TEXT NOT NULL,
	person  TEXT NOT NULL,
	host    TEXT NOT NULL,
	text    TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_request ON decisions (request, id);

-- How far each outbox of a host was received.
CREATE TABLE outboxes (
	host   TEXT NOT NULL REFERENCES hosts,
	outbox TEXT NOT NULL,
	up_to  INTEGER NOT NULL,
	PRIMARY KEY (host, outbox)
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	host       TEXT NOT NULL REFERENCES hosts,
	outbox     TEXT NOT NULL,
	seq        INTEGER NOT NULL, -- 0: made here
	kind       TEXT NOT NULL,
	at         INTEGER NOT NULL,
	grant_id   TEXT NOT NULL,
	person     TEXT NOT NULL,
	words      TEXT NOT NULL, -- to search in
	receipt_ok INTEGER NOT NULL CHECK (receipt_ok IN (0, 1)),
	receipt_key BLOB NOT NULL,
	raw        BLOB NOT NULL,
	UNIQUE (host, outbox, seq)
) STRICT;
CREATE INDEX entries_grant ON entries (grant_id, id);
CREATE INDEX entries_person ON entries (person, id);
CREATE INDEX entries_host ON entries (host, id);

CREATE TABLE policy_versions (
	version   TEXT PRIMARY KEY,
	loaded_at INTEGER NOT NULL
) STRICT;
