-- +goose Up

-- When a decommissioned host said that nothing stands on it any more: for a
-- moment after that it may still hand in its receipts.
ALTER TABLE hosts ADD COLUMN left_at INTEGER NOT NULL DEFAULT 0;
