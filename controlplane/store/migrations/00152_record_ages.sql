-- +goose Up

-- How far the record went at which time, by the control plane's own clock. What
-- an entry says of its time is its host's word, and whoever is root there sets
-- that clock.
CREATE TABLE record_ages (
    at INTEGER PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;

-- The control plane's own entries have told it until now, one for each hour; but
-- one of a seal that does not hold has the time that its host said.
INSERT INTO record_ages (at, last)
    SELECT max(at), max(id) FROM entries WHERE host = '' AND outbox = 'control-plane' AND kind <> 'gap' AND at > 0 GROUP BY at / 3600000000000;
