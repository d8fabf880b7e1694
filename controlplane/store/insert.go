package store

import (
	"context"
	"strings"
)

// atOnce is how many rows one statement inserts. Each statement costs a round
// trip on PostgreSQL, and a reading of its text on SQLite.
const atOnce = 50

// insert inserts rows, given column after column, into what stands behind
// INSERT INTO. The statement is read once.
func (t *tx) insert(ctx context.Context, into string, columns int, rows []any) error {
	if len(rows) >= atOnce*columns {
		full, err := t.PrepareContext(ctx, inserting(into, columns, atOnce))
		if err != nil {
			return err
		}
		defer full.Close() //nolint:errcheck // its transaction's end closes it, too
		for ; len(rows) >= atOnce*columns; rows = rows[atOnce*columns:] {
			if _, err := full.ExecContext(ctx, kept(rows[:atOnce*columns])...); err != nil {
				return known(err)
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return t.run(ctx, inserting(into, columns, len(rows)/columns), rows...)
}

func inserting(into string, columns, rows int) string {
	row := "(" + strings.Repeat("?, ", columns-1) + "?)"
	return "INSERT INTO " + into + " VALUES " + row + strings.Repeat(", "+row, rows-1)
}
