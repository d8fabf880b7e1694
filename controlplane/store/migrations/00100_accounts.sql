-- +goose Up

-- Who a person is to the provider at which she signs in. One account is one
-- person's, and a person has one at each provider.
CREATE TABLE accounts (
	issuer   TEXT NOT NULL,
	subject  TEXT NOT NULL,
	person   TEXT NOT NULL REFERENCES people,
	bound_at INTEGER NOT NULL,
	PRIMARY KEY (issuer, subject),
	UNIQUE (issuer, person)
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER accounts_stay BEFORE UPDATE ON accounts BEGIN
	SELECT RAISE(ABORT, 'an account is bound once');
END;
-- +goose StatementEnd
