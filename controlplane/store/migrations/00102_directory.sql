-- +goose Up

-- People and groups as a directory keeps them (SCIM). What is here of a person
-- is what the directory says; whom it may end is in people.
CREATE TABLE dir_users (
	id          TEXT PRIMARY KEY,
	person      TEXT NOT NULL UNIQUE REFERENCES people,
	user_name   TEXT NOT NULL,
	folded      TEXT NOT NULL UNIQUE, -- the same in small letters
	external_id TEXT NOT NULL,
	manager     TEXT NOT NULL DEFAULT '', -- id of another, who may come later
	ended       INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)), -- it was the directory that disabled her
	created_at  INTEGER NOT NULL,
	changed_at  INTEGER NOT NULL
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER dir_users_stay BEFORE UPDATE OF id, person ON dir_users BEGIN
	SELECT RAISE(ABORT, 'whom the directory means is settled once');
END;
-- +goose StatementEnd

CREATE TABLE dir_groups (
	id          TEXT PRIMARY KEY,
	name        TEXT NOT NULL UNIQUE,
	external_id TEXT NOT NULL,
	created_at  INTEGER NOT NULL,
	changed_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE dir_members (
	grp    TEXT NOT NULL REFERENCES dir_groups ON DELETE CASCADE,
	member TEXT NOT NULL REFERENCES dir_users ON DELETE CASCADE,
	PRIMARY KEY (grp, member)
) STRICT;
CREATE INDEX dir_members_member ON dir_members (member);
