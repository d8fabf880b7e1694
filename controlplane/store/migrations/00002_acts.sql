-- +goose Up

-- When the session's person last proved herself with her second factor.
ALTER TABLE sessions ADD COLUMN proved_at INTEGER NOT NULL DEFAULT 0;

-- The set that a decommissioned host has yet to take, because something stood
-- on it; 0: none.
ALTER TABLE hosts ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN unwired TEXT NOT NULL DEFAULT 'null';

-- The same, but for the host: it is empty where the control plane itself
-- tells what people did to the fleet.
CREATE TABLE all_entries (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	host       TEXT NOT NULL,
	outbox     TEXT NOT NULL,
	seq        INTEGER NOT NULL,
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
INSERT INTO all_entries SELECT * FROM entries;
DROP TABLE entries;
ALTER TABLE all_entries RENAME TO entries;
CREATE INDEX entries_grant ON entries (grant_id, id);
CREATE INDEX entries_person ON entries (person, id);
CREATE INDEX entries_host ON entries (host, id);
