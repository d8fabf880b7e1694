// Package cosign has witnesses cosign the checkpoints of the log (C2SP
// tlog-witness), and keeps what they answer.
//
// The log waits for no witness. One that says that the log is not what it was
// is an alert, and in the record; so is one that is silent.
package cosign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

const (
	every     = 10 * time.Second // a log that grows is cosigned
	patience  = time.Minute      // with a witness that is silent, before it is told
	askWithin = 5 * time.Second  // of a witness
	atMost    = 3                // askings of one, each from where it says that it is
)

// Log is the log over the record.
type Log interface {
	Checkpoint(ctx context.Context) (ledger.Checkpoint, []byte, error)
}

// Store keeps what witnesses answer, and proves to them how the log grew.
type Store interface {
	Growth(ctx context.Context, from, to uint64) (tlog.TreeProof, error)
	Witness(ctx context.Context, key string) (roster.Witness, error)
	UpdateWitness(ctx context.Context, key string, at time.Time, f func(roster.Witness) (w roster.Witness, step, text string)) error
}

// A Cosigner asks all witnesses.
type Cosigner struct {
	log   Log
	store Store
	clock clock.Clock
	tell  *slog.Logger
	of    []*witness

	asking sync.Mutex // one asks at a time

	mu        sync.Mutex // guards what follows
	newest    ledger.Checkpoint
	published []byte
	whole     bool // all witnesses cosigned it
}

// witness is one that is asked.
type witness struct {
	ledger.Witness
	key    string
	url    string
	client *http.Client
	away   atomic.Bool // it did not answer in time, and nobody waits for it until it has
}

// New puts together what asks the witnesses.
func New(targets []Target, l Log, s Store, c clock.Clock, tell *slog.Logger) (*Cosigner, error) {
	k := &Cosigner{log: l, store: s, clock: c, tell: tell}
	for _, t := range targets {
		w, err := t.witness()
		if err != nil {
			return nil, fmt.Errorf("witness %s: %w", t.URL, err)
		}
		k.of = append(k.of, w)
	}
	return k, nil
}

// Run has the log cosigned as it grows, until ctx is done.
func (k *Cosigner) Run(ctx context.Context) error {
	for len(k.of) > 0 {
		_, _, err := k.Cosigned(ctx)
		if err = errors.Join(err, k.again(ctx)); err != nil && ctx.Err() == nil {
			k.tell.ErrorContext(ctx, "the log is not cosigned", "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.clock.After(every):
		}
	}
	return nil
}

// again asks those that did not answer in time. It is alone in waiting for
// them: an export would wait for as long each time.
func (k *Cosigner) again(ctx context.Context) error {
	g := new(errgroup.Group)
	for _, w := range k.of {
		if !w.away.Load() {
			continue
		}
		g.Go(func() error {
			now, note, err := k.log.Checkpoint(ctx)
			if err == nil {
				_, err = k.one(ctx, w, now, note)
			}
			return err
		})
	}
	return g.Wait()
}

// Cosigned is the log as it stands, in a note with the lines of those witnesses
// that answer at once. One that let it wait before is not waited for.
func (k *Cosigner) Cosigned(ctx context.Context) (ledger.Checkpoint, []byte, error) {
	if len(k.of) == 0 {
		return k.log.Checkpoint(ctx)
	}
	k.asking.Lock()
	defer k.asking.Unlock()
	now, note, err := k.log.Checkpoint(ctx)
	if err != nil {
		return now, nil, err
	}
	if was, b, whole := k.shown(); whole && now == was {
		return now, b, nil
	}
	lines := make([]string, len(k.of))
	g := new(errgroup.Group)
	for i, w := range k.of {
		if w.away.Load() {
			continue
		}
		g.Go(func() (err error) {
			lines[i], err = k.one(ctx, w, now, note)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return now, nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.newest, k.published, k.whole = now, append(bytes.Clone(note), strings.Join(lines, "")...), true
	for _, line := range lines {
		k.whole = k.whole && line != ""
	}
	return now, k.published, nil
}

// shown is what was cosigned last, and whether by all.
func (k *Cosigner) shown() (c ledger.Checkpoint, published []byte, whole bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.newest, k.published, k.whole
}

// Published is the note that was cosigned last, or, where there is none, the
// newest. Whoever wants it does not wait for a witness that is asked meanwhile.
func (k *Cosigner) Published(ctx context.Context) ([]byte, error) {
	if _, b, _ := k.shown(); b != nil {
		return b, nil
	}
	_, note, err := k.log.Checkpoint(ctx)
	return note, err
}

// Witnesses is what is known of each.
func (k *Cosigner) Witnesses(ctx context.Context) ([]roster.Witness, error) {
	var all []roster.Witness
	for _, w := range k.of {
		v, err := k.store.Witness(ctx, w.key)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// one asks one witness, and keeps what came of it. Only what cannot be kept is
// an error.
func (k *Cosigner) one(ctx context.Context, w *witness, now ledger.Checkpoint, note []byte) (line string, err error) {
	was, err := k.store.Witness(ctx, w.key)
	if err != nil {
		return "", err
	}
	soon, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	line, at, asked := k.ask(soon, w, was.Size, now, note)
	w.away.Store(asked != nil && soon.Err() != nil && ctx.Err() == nil)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(asked, errBehind):
		return "", nil // the next time there is a newer one
	case asked != nil && !worse(was, asked, k.clock.Now().Wall):
		return "", nil
	}
	var alert bool
	err = k.store.UpdateWitness(ctx, w.key, k.clock.Now().Wall, func(was roster.Witness) (roster.Witness, string, string) {
		if asked == nil {
			return said(was, roster.Witness{Key: w.key, Size: now.Size, Note: append(bytes.Clone(note), line...), At: at})
		}
		next, step, text := failed(was, asked, k.clock.Now().Wall)
		alert = step != ""
		return next, step, text
	})
	if alert {
		k.tell.ErrorContext(ctx, "alert: a witness does not cosign the log", "witness", w.Name, "cause", asked)
	}
	return line, err
}

// said is what is known of a witness that cosigned. Another server may have had
// it cosign more.
func said(was, now roster.Witness) (w roster.Witness, step, text string) {
	if was.Size > now.Size {
		now.Size, now.Note, now.At = was.Size, was.Note, was.At
	}
	if !was.Told {
		return now, "", ""
	}
	return now, roster.Cosigns, fmt.Sprintf("the log of %d entries, again; it had not since %s: %s", now.Size, was.Since.UTC().Format(time.RFC3339), was.Why)
}

// worse reports whether there is more to keep of a witness that did not cosign
// than what is known.
func worse(was roster.Witness, why error, now time.Time) bool {
	next, step, _ := failed(was, why, now)
	return step != "" || was.Since.IsZero() || next.Refuses != was.Refuses
}

// failed is what is known of a witness that did not cosign, and what there is
// to tell of that.
func failed(was roster.Witness, why error, now time.Time) (next roster.Witness, step, text string) {
	next = was
	if next.Since.IsZero() {
		next.Since = now
	}
	next.Refuses = errors.Is(why, errRefuses)
	next.Why = why.Error()
	since := next.Since.UTC().Format(time.RFC3339)
	switch {
	case next.Refuses && (!was.Told || !was.Refuses):
		next.Told = true
		return next, roster.Refuses, fmt.Sprintf("does not cosign since %s: %v. Was the database set back, or changed? Keep what the witness has", since, why)
	case !was.Told && now.Sub(next.Since) >= patience:
		next.Told = true
		return next, roster.Silent, fmt.Sprintf("does not cosign since %s: %v", since, why)
	}
	return next, "", ""
}
