-- +goose Up

-- The request that an entry is about, where the control plane tells of one.
ALTER TABLE entries ADD COLUMN request TEXT NOT NULL DEFAULT '';
CREATE INDEX entries_request ON entries (request) WHERE request <> '';

-- The hashes of the log's tree, at the places that golang.org/x/mod/sumdb/tlog
-- gives them. Entry n is the leaf n-1; the next migration takes in what is there.
CREATE TABLE log_hashes (
	place INTEGER PRIMARY KEY,
	hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER log_hashes_stay BEFORE UPDATE ON log_hashes BEGIN
	SELECT RAISE(ABORT, 'the log is only added to');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER log_hashes_keep BEFORE DELETE ON log_hashes BEGIN
	SELECT RAISE(ABORT, 'the log is only added to');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER entries_stay BEFORE UPDATE OF host, outbox, seq, kind, receipt_key, raw ON entries BEGIN
	SELECT RAISE(ABORT, 'the log is only added to');
END;
-- +goose StatementEnd
