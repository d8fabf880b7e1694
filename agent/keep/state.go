package keep

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"curfew.internal/canon"
	"curfew.internal/grant"
)

const (
	stateFile = "grants"
	stateKind = "curfew grants 1"
)

// A state is the last keyring and set that were accepted, verbatim, and what
// they say.
type state struct {
	at       time.Time // the instant at which the set was accepted
	revision uint64    // never goes back, also if the set no longer opens
	keyring  []byte
	set      []byte

	ring   grant.Keyring
	opened grant.Opened
}

func (s state) bytes() []byte {
	var w canon.Writer
	w.Nanos(1, s.at)
	w.Uint(2, s.revision)
	w.Blob(3, s.keyring)
	w.Blob(4, s.set)
	return w.Bytes()
}

func (s *state) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Nanos(&s.at)
	case 2:
		return f.Uint(&s.revision)
	case 3:
		return f.Blob(&s.keyring)
	case 4:
		return f.Blob(&s.set)
	}
	return f.Unknown()
}

// loadState reads the state, and checks its signatures as of the instant at
// which it was accepted: a key that has run out since is no reason to drop
// what it signed.
func (k *Keep) loadState() (state, error) {
	// The set that is to come is at least the one that was there already.
	held := k.loadHeld()
	lost := state{revision: max(1, held) - 1}
	b, err := os.ReadFile(k.path(stateFile))
	if errors.Is(err, os.ErrNotExist) && held == 0 {
		return state{}, nil
	}
	var s state
	if err == nil {
		b, err = unseal(stateKind, b)
	}
	if err == nil {
		err = canon.Read(b, s.field)
	}
	if err == nil {
		s.ring, err = grant.OpenKeyring(s.keyring, k.Fleet, k.Roots)
	}
	if err == nil && s.revision < held {
		err = fmt.Errorf("%d in place of %d: %w", s.revision, held, grant.ErrRollback)
	}
	if err != nil {
		return lost, fmt.Errorf("kept grants do not count, the control plane will send them anew: %w", err)
	}
	s.opened, err = k.open(s)
	if errors.Is(err, grant.ErrOtherHost) || errors.Is(err, grant.ErrOtherFleet) {
		// This machine was another host: its numbers bind us to nothing.
		return state{}, fmt.Errorf("kept grants do not count: %w", err)
	}
	if err != nil {
		return s, fmt.Errorf("kept grants do not count, the control plane will send them anew: %w", err)
	}
	return s, nil
}

// open reads the set under the keyring as of the instant of acceptance.
func (k *Keep) open(s state) (grant.Opened, error) {
	if len(s.set) == 0 {
		return grant.Opened{}, nil
	}
	return k.reader(s.ring).Open(s.set, s.at)
}

// reader is this host, as it opens sets.
func (k *Keep) reader(ring grant.Keyring) grant.Reader {
	return grant.Reader{Fleet: k.Fleet, Host: k.Host, Ring: ring, Roster: k.held.roster}
}

// Accept takes a keyring and a set in place of those kept, if they may be. It
// returns what counts from now on; the error says why something offered was
// refused. A newer keyring counts even if the set with it is refused: a key
// that the root no longer vouches for is not kept alive by a bad set.
// Refused, in what it returns, names only what is new.
//
// A disk that takes nothing does not keep a revocation from counting: the
// state is then in memory, and written as soon as that is possible.
func (k *Keep) Accept(keyring, set []byte, at time.Time) (grant.Opened, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.state
	ring, err := grant.OpenKeyring(keyring, k.Fleet, k.Roots)
	if err == nil {
		err = follows(ring.Version, k.state.ring.Version, keyring, k.state.keyring)
	}
	if err != nil {
		return quiet(k.state.opened), fmt.Errorf("keyring not accepted: %w", err)
	}
	next.ring, next.keyring = ring, bytes.Clone(keyring)
	same := bytes.Equal(set, k.state.set) && !k.held.turned
	k.held.turned = false
	refused := k.takeSet(&next, set, at)
	k.adopt(next)
	if refused != nil {
		return quiet(next.opened), fmt.Errorf("grant set not accepted: %w", refused)
	}
	if same {
		return quiet(next.opened), nil
	}
	return next.opened, nil
}

// takeSet puts the set into next, or opens the one that is there anew under
// next's keyring.
func (k *Keep) takeSet(next *state, set []byte, at time.Time) error {
	var refused error
	if !bytes.Equal(set, next.set) {
		o, err := k.reader(next.ring).Open(set, at)
		if err == nil {
			err = follows(o.Revision, next.revision, set, next.set)
		}
		if err == nil {
			next.at, next.set, next.revision, next.opened = at, bytes.Clone(set), o.Revision, o
			return nil
		}
		refused = err
	}
	o, err := k.open(*next)
	if err != nil && refused == nil {
		refused = err
	}
	next.opened = o // none, if the keyring no longer holds the key
	return refused
}

// follows says whether what is offered may take the place of what is kept.
func follows(offered, kept uint64, offeredBytes, keptBytes []byte) error {
	switch {
	case offered < kept:
		return fmt.Errorf("%d in place of %d: %w", offered, kept, grant.ErrRollback)
	case offered == 0:
		return fmt.Errorf("numbered zero: %w", grant.ErrRollback)
	case offered == kept && !bytes.Equal(offeredBytes, keptBytes):
		return fmt.Errorf("%d: %w", offered, grant.ErrChanged)
	}
	return nil
}

func quiet(o grant.Opened) grant.Opened {
	o.Refused = nil
	return o
}

// adopt makes next the state, on disk if that can be.
func (k *Keep) adopt(next state) {
	changed := !bytes.Equal(next.bytes(), k.state.bytes())
	k.state, k.bad = next, nil
	k.Trusted(k.Clock.Now())
	if !changed && !k.dirty {
		return
	}
	k.dirty = true
	if err := errors.Join(k.saveHeld(), k.save(), k.saveMark()); err != nil {
		k.Log.Error("accepted grants are in memory only until the disk takes them", "err", err)
	}
}

// saveDirty writes what the disk did not take, and again what somebody took
// away, for the agent that comes after this one. Not the roster: an operator
// removes that on purpose (docs/roster.md).
func (k *Keep) saveDirty() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, err := os.Lstat(k.path(stateFile))
	k.dirty = k.dirty || k.state.revision > 0 && errors.Is(err, os.ErrNotExist)
	return k.save()
}

func (k *Keep) save() error {
	if !k.dirty || k.lock == nil {
		return nil
	}
	if err := replace(k.path(stateFile), sealed(stateKind, k.state.bytes()), 0o600); err != nil {
		return fmt.Errorf("write grants: %w", err)
	}
	k.dirty = false
	return nil
}

// Reset forgets the grants that were kept for an enrolment before: their
// revisions would refuse those of the new one.
func Reset(dir string) error {
	if err := forget(filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("forget grants: %w", err)
	}
	return nil
}
