-- +goose Up

-- Two recordings may show the same, and are one file then.
CREATE INDEX terminal_segments_digest ON terminal_segments (digest);
