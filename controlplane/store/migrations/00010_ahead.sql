-- +goose Up

-- The revision that a host said it keeps, where this database has not given it
-- yet: the database was set back. 0: no.
ALTER TABLE hosts ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;

-- An end without a receipt is told once, whichever server sees it first.
CREATE UNIQUE INDEX decisions_unconfirmed ON decisions (request, host) WHERE what = 'unconfirmed';
