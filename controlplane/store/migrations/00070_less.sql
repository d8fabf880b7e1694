-- An approver may say yes to less than was asked for: to so many seconds (0: all), and to
-- these of the hosts (none: all).

-- +goose Up
ALTER TABLE approvals ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE approvals ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]';
