-- +goose Up

-- Who is in which of the provider's groups, as it said when she last signed in.
CREATE TABLE members (
	grp     TEXT NOT NULL,
	person  TEXT NOT NULL REFERENCES people,
	told_at INTEGER NOT NULL,
	PRIMARY KEY (grp, person)
) STRICT;
CREATE INDEX members_person ON members (person);

CREATE TABLE managers (
	person  TEXT PRIMARY KEY REFERENCES people,
	manager TEXT NOT NULL REFERENCES people,
	told_at INTEGER NOT NULL
) STRICT;
