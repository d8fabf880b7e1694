-- +goose Up

-- What a host does with sudo and su without a grant, and what its doctor found.
ALTER TABLE hosts ADD COLUMN access TEXT NOT NULL DEFAULT '';
ALTER TABLE hosts ADD COLUMN examined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN findings TEXT NOT NULL DEFAULT 'null';
