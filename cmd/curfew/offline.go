package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"curfew.internal/ledger"
)

// offline plays recordings out of a bundle, once all of it is verified.
func (r replayCmd) offline(ctx context.Context, p *program) error {
	key, err := logKey(p, r.Key)
	if err != nil {
		return err
	}
	file, report, err := looked(r.Bundle, ledger.Trust{Key: key})
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if len(report.Findings) > 0 {
		fmt.Fprint(p.err, verified(report))
		return errNotVerified
	}
	all := reels(report.Takes, r.ID)
	switch {
	case len(all) == 0:
		return fmt.Errorf("the bundle has no recording of %s: name a recording, a session or a grant, and export with --recordings", line(r.ID))
	case r.Cast != "" && len(all) > 1:
		names := make([]string, len(all))
		for i, one := range all {
			names[i] = line(one[0].Terminal)
		}
		return fmt.Errorf("%d recordings are of %s: name one of %s", len(all), line(r.ID), strings.Join(names, ", "))
	}
	for _, one := range all {
		fmt.Fprintf(p.err, "--- %s  %s %s %s from %s\n", line(one[0].Terminal), line(one[0].Host), line(one[0].Grant), line(one[0].Person), stamp(one[0].From))
		each := func(f func(context.Context, part) error) error { return takes(ctx, p, file, one, f) }
		if r.Cast != "" {
			return written(r.Cast, each)
		}
		if err := r.play(p, each); err != nil {
			return err
		}
	}
	return nil
}

// reels are the recordings of a name, a session or a grant, the oldest first,
// each with its segments in order.
func reels(all []ledger.Take, id string) [][]ledger.Take {
	session := strings.Repeat("0", max(0, 16-len(id))) + id
	all = slices.DeleteFunc(slices.Clone(all), func(t ledger.Take) bool {
		return t.Terminal != id && t.Grant != id && fmt.Sprintf("%016x", t.Session) != session
	})
	slices.SortFunc(all, func(a, b ledger.Take) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Terminal, b.Terminal), cmp.Compare(a.Number, b.Number))
	})
	var reels [][]ledger.Take
	for i, t := range all {
		if i == 0 || t.Host != all[i-1].Host || t.Terminal != all[i-1].Terminal {
			reels = append(reels, nil)
		}
		reels[len(reels)-1] = append(reels[len(reels)-1], t)
	}
	return reels
}

// takes calls f for each segment, and says which are not there.
func takes(ctx context.Context, p *program, file ledger.File, all []ledger.Take, f func(context.Context, part) error) error {
	next := uint64(1)
	for _, t := range all {
		if t.Number > next {
			fmt.Fprintf(p.err, "--- segments %d to %d are not in the bundle: they were deleted, or told before its first entry\n", next, t.Number-1)
		}
		next = t.Number + 1
		data, err := t.Shown(file)
		if err == nil {
			err = f(ctx, part{t.Segment, data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
