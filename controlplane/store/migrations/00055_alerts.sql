-- +goose Up
-- What is looked for again and again, and is rare among all that hosts tell.
CREATE INDEX entries_alerts ON entries (kind, at) WHERE kind IN ('gap', 'privilege');
