package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// forgetTapesAtOnce is how many recordings one change marks.
const forgetTapesAtOnce = 50

// ForgetTerminals marks recordings of a role that were written to before a time
// last, so that what they show is deleted, and puts into the record that it is.
// What their hosts signed of them stays. One goes on no longer than its grant.
func (s *Store) ForgetTerminals(ctx context.Context, role string, before, at time.Time) error {
	type tape struct{ host, id string }
	for {
		var tapes []tape
		err := s.write(ctx, func(t *tx) error {
			var err error
			tapes, err = list(ctx, t, func(r scanner) (v tape, err error) {
				err = r.Scan(&v.host, &v.id)
				return v, err
			}, `SELECT t.host, t.id FROM terminals t JOIN grants g ON g.id = t.grant_id
				WHERE g.role = ? AND t.seen < ? AND g.not_after < ? AND t.erased = 0 ORDER BY t.started, t.id LIMIT ?`, role, ns(before), ns(before), forgetTapesAtOnce)
			if err != nil || len(tapes) == 0 {
				return err
			}
			var names []string
			for _, v := range tapes {
				if err := t.run(ctx, `UPDATE terminals SET erased = 1 WHERE host = ? AND id = ?`, v.host, v.id); err != nil {
					return err
				}
				names = append(names, v.id+" on "+v.host)
			}
			return t.tell(ctx, roster.Act{At: at}, "deleted what terminals showed to role %s before %s, as its retention says: %s", role, before.UTC().Format(time.RFC3339), strings.Join(names, ", "))
		})
		if err != nil {
			return fmt.Errorf("forget recordings of role %s: %w", role, err)
		}
		if len(tapes) < forgetTapesAtOnce {
			return nil
		}
	}
}

// Tapes returns, of entries of the record, what hosts signed of segments in them,
// each once, and which of these show nothing any more.
func (s *Store) Tapes(ctx context.Context, numbers []uint64) (said map[uint64]ledger.Segment, erased []uint64, err error) {
	said = map[uint64]ledger.Segment{}
	for some := range slices.Chunk(numbers, someAtOnce) {
		leaves, err := list(ctx, s.read, scanLeaf, `SELECT id, host, outbox, seq, kind, receipt_key, raw FROM entries
			WHERE kind = 'terminal' AND id IN `+among(some), args(some)...)
		if err != nil {
			return nil, nil, err
		}
		for _, l := range leaves {
			e, err := ledger.ParseEntry(l.Entry)
			if err != nil {
				continue // the verifier says so
			}
			if v, err := ledger.OpenSegment(e.Receipt, l.ReceiptKey); err == nil && len(v.Digest) > 0 {
				said[l.Number] = v
			}
		}
	}
	all, err := list(ctx, s.read, scanText, `SELECT host || ' ' || id FROM terminals WHERE erased > 0`)
	if err != nil {
		return nil, nil, err
	}
	gone := map[string]bool{}
	for _, name := range all {
		gone[name] = true
	}
	said = ledger.Untold(said)
	for _, n := range slices.Sorted(maps.Keys(said)) {
		if v := said[n]; gone[v.Host+" "+v.Terminal] {
			erased = append(erased, n)
			delete(said, n)
		}
	}
	return said, erased, nil
}

// Erasing returns recordings whose files are to be deleted.
func (s *Store) Erasing(ctx context.Context) ([]roster.Terminal, error) {
	return list(ctx, s.read, func(r scanner) (v roster.Terminal, err error) {
		err = r.Scan(&v.Host, &v.ID)
		return v, err
	}, `SELECT host, id FROM terminals WHERE erased = 1 ORDER BY host, id LIMIT ?`, forgetTapesAtOnce)
}

// IfUnshown calls remove, unless a recording that is not to be deleted has a
// segment with the digest, on whichever host. It does so in the turn of a change:
// no server keeps one meanwhile.
func (s *Store) IfUnshown(ctx context.Context, digest []byte, remove func() error) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		var shown bool
		err := t.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM terminal_segments s JOIN terminals t ON t.host = s.host AND t.id = s.terminal
			WHERE s.digest = ? AND t.erased = 0)`, digest).Scan(&shown)
		if err != nil || shown {
			return err
		}
		return remove()
	})
}

// Erased says that the files of a recording are gone, up to the segment of a
// number. One that came since has it looked at again.
func (s *Store) Erased(ctx context.Context, host, id string, last uint64) error {
	return s.write(ctx, func(t *tx) error {
		return t.run(ctx, `UPDATE terminals SET erased = 2 WHERE host = ? AND id = ? AND erased = 1
			AND NOT EXISTS (SELECT 1 FROM terminal_segments WHERE host = ? AND terminal = ? AND number > ?)`, host, id, host, id, int64(min(last, 1<<62)))
	})
}
