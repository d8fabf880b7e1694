-- +goose Up

-- What witnesses make of the log: the newest checkpoint that each cosigned, and
-- since when it does not.
CREATE TABLE witnesses (
	key     TEXT NOT NULL PRIMARY KEY, -- the public half, which begins with its name
	size    INTEGER NOT NULL,
	note    BLOB NOT NULL,    -- the checkpoint, with the witness's line
	at      INTEGER NOT NULL, -- when it cosigned, as it says
	since   INTEGER NOT NULL, -- it does not cosign since then; 0: it does
	why     TEXT NOT NULL,
	refuses INTEGER NOT NULL CHECK (refuses IN (0, 1)), -- it says that the log is not what it was
	told    INTEGER NOT NULL CHECK (told IN (0, 1))     -- the record tells that it does not cosign
) STRICT;
