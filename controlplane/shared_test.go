package controlplane

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A tape is a recording of one segment that was taken.
type tape struct {
	*terminals
	key    ed25519.PrivateKey // its host's
	last   ledger.Segment
	packed []byte
	over   time.Time // once its time is over
}

func recorded(t *testing.T, w *town) tape {
	t.Helper()
	v := tape{key: ed25519.NewKeyFromSeed(make([]byte, 32))}
	var g *grant.Grant
	g, v.terminals = w.granted(t, v.key), w.server.terminals
	var err error
	_, v.packed, err = taped(t, v.terminals, g, v.key, &v.last)
	must(t, err)
	v.over = g.NotAfter.Add(time.Hour)
	return v
}

// overtaken is a recording whose time is over, and what hands in the same as
// another's, which is kept for longer.
func overtaken(t *testing.T, w *town) (s *terminals, digest []byte, again func() error) {
	t.Helper()
	v := recorded(t, w)
	must(t, v.ForgetTerminals(t.Context(), "db", v.over, v.over))
	later := v.last
	later.Terminal, later.To = "00000000000000ab-02", v.over.Add(time.Hour)
	ctx := t.Context()
	return v.terminals, v.last.Digest, func() error { return v.KeepTerminal(ctx, "db1", later.Seal(v.key), v.packed) }
}

var errOver = errors.New("nothing is changed")

// turn calls f while no change can be made.
func turn(t *testing.T, s *terminals, f func()) {
	t.Helper()
	_, err := s.Change(t.Context(), "r-aaaaaaaaaaaaaaaa", time.Now(), func(roster.Request) (roster.Change, error) {
		f()
		return roster.Change{}, errOver
	})
	if !errors.Is(err, errOver) {
		t.Fatal(err)
	}
}

// A host hands in what another recording showed, whose file is deleted after it
// was found there, and before it is vouched for.
func TestAFileThatIsDeletedBeforeItIsVouchedForIsPutBack(t *testing.T) {
	w := newTown(t)
	w.start(t)
	s, digest, again := overtaken(t, w)
	done := make(chan error, 1)
	turn(t, s, func() {
		must(t, s.Remove(digest)) // so that it is seen when it is put there
		go func() { done <- again() }()
		for s.Has(digest) != nil {
			runtime.Gosched()
		}
		must(t, s.Remove(digest)) // what the other recording's end does in its turn
	})
	must(t, <-done)
	if _, err := s.Get(digest); err != nil {
		t.Error("it was acknowledged, and is gone:", err)
	}
	must(t, s.clear(t.Context()))
	if _, err := s.Get(digest); err != nil {
		t.Error("it went with the other recording:", err)
	}
}

// A host hands in what another recording showed, while that one's file is deleted
// because nobody showed it.
func TestAFileIsDeletedInATurnOfItsOwn(t *testing.T) {
	w := newTown(t)
	w.start(t)
	s, digest, again := overtaken(t, w)
	done := make(chan error, 1)
	must(t, s.IfUnshown(t.Context(), digest, func() error {
		go func() { done <- again() }()
		// Another change, which asks for its turn after that, finds none either.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := s.Erased(ctx, "db1", "none", 0); err == nil {
			t.Error("a change was made in the turn of a file that is deleted")
		}
		return s.Remove(digest)
	}))
	must(t, <-done)
	if _, err := s.Get(digest); err != nil {
		t.Error("it was acknowledged, and is gone:", err)
	}
}

// A host that did not hear that its segment was taken hands it in again, while the
// recording is deleted, or after: its file does not stay.
func TestWhatIsHandedInAgainOfADeletedRecordingDoesNotStay(t *testing.T) {
	for name, late := range map[string]bool{"while": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.start(t)
			v := recorded(t, w)
			must(t, v.ForgetTerminals(t.Context(), "db", v.over, v.over))
			must(t, v.drop(t.Context(), v.last.Digest))
			erased := func() { must(t, v.Erased(t.Context(), "db1", v.last.Terminal, v.last.Number)) }
			if late {
				erased()
			}
			must(t, v.KeepTerminal(t.Context(), "db1", v.last.Seal(v.key), v.packed))
			erased()
			if err := v.Has(v.last.Digest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its file is there: %v", err)
			}
		})
	}
}

// What a host hands in beside its recordings takes no room: a segment out of its
// turn, one of another length than was signed, and one that it hung up on.
func TestWhatIsNotVouchedForIsNotKept(t *testing.T) {
	for name, spoil := range map[string]func(v *ledger.Segment, hangUp func()){
		"out of its turn":   func(v *ledger.Segment, _ func()) { v.Number, v.Before = 7, v.Digest },
		"of another length": func(v *ledger.Segment, _ func()) { v.Size++ },
		"hung up on":        func(_ *ledger.Segment, hangUp func()) { hangUp() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.start(t)
			r := recorded(t, w)
			s, v := r.terminals, r.last
			must(t, s.Remove(v.Digest))
			v.Terminal = "00000000000000ab-02"
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			var hungUp bool
			spoil(&v, func() { hungUp = true })
			must(t, s.ForgetTerminals(t.Context(), "db", r.over, r.over)) // what was there
			turn(t, s, func() {
				go func() { done <- s.KeepTerminal(ctx, "db1", v.Seal(r.key), r.packed) }()
				for hungUp && s.Has(v.Digest) != nil {
					runtime.Gosched()
				}
				if hungUp {
					cancel()
				}
			})
			if err := <-done; err == nil {
				t.Error("it is taken")
			}
			if err := s.Has(v.Digest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its file is there: %v", err)
			}
		})
	}
}
