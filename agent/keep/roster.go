package keep

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"curfew.internal/canon"
	"curfew.internal/grant"
)

const (
	rosterFile = "roster"
	rosterKind = "curfew roster 1"
)

// A heldRoster is the roster of people's keys that this host holds.
type heldRoster struct {
	roster   *grant.Roster // nil: none
	envelope []byte
	turned   bool // it is another since the set was opened last
	unsaved  bool // the disk did not take it yet
}

// unreadable stands in for a roster that cannot be read: it demands people's
// signatures for every grant, and knows nobody.
var unreadable = grant.Roster{All: true}

// loadRoster reads the roster that was kept. One that is damaged is no reason
// to do without: whoever could damage it would else be rid of it.
func (k *Keep) loadRoster() heldRoster {
	b, err := os.ReadFile(k.path(rosterFile))
	if errors.Is(err, os.ErrNotExist) {
		return heldRoster{}
	}
	if err == nil {
		b, err = unseal(rosterKind, b)
	}
	var of string
	var envelope []byte
	if err == nil {
		err = canon.Read(b, func(f canon.Field) error {
			switch f.Num {
			case 1:
				return f.Text(&of)
			case 2:
				return f.Blob(&envelope)
			}
			return f.Unknown()
		})
	}
	if err == nil && of != k.of() {
		return heldRoster{} // of another fleet, that this machine was in before
	}
	var r grant.Roster
	if err == nil {
		r, err = grant.OpenRoster(envelope, k.Fleet)
	}
	if err != nil {
		k.Log.Error("the roster of people's keys cannot be read: every grant is refused until the control plane has sent it anew", "err", err)
		return heldRoster{roster: &unreadable, turned: true} // the next set says what that costs
	}
	return heldRoster{roster: &r, envelope: envelope}
}

// Roster is the version of the roster that is held; zero if there is none.
func (k *Keep) Roster() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held.version()
}

func (h heldRoster) version() uint64 {
	if h.roster == nil {
		return 0
	}
	return h.roster.Version
}

// TakeRosters takes versions of the roster, one after the other, as far as each
// follows the one before. The set that is kept is opened anew under the last
// one by the next [Keep.Accept].
func (k *Keep) TakeRosters(envelopes [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.held
	for _, e := range envelopes {
		was := grant.Roster{}
		if next.roster != nil {
			was = *next.roster
		}
		r, err := grant.OpenRoster(e, k.Fleet)
		if err == nil && r.Version <= was.Version {
			if r.Version == was.Version && !bytes.Equal(e, next.envelope) {
				err = fmt.Errorf("roster: %d: %w", r.Version, grant.ErrChanged)
			}
			if err == nil {
				continue // known
			}
		}
		if err == nil {
			r, err = was.Follow(e, k.Fleet, k.Roots)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("roster of people's keys not accepted: %w", err), k.adoptRoster(next))
		}
		next = heldRoster{roster: &r, envelope: bytes.Clone(e), turned: true}
	}
	return k.adoptRoster(next)
}

// adoptRoster makes next the roster. It counts before the disk has it, but the
// host says so: an agent that starts again holds the one before.
func (k *Keep) adoptRoster(next heldRoster) error {
	next.unsaved = next.unsaved || !bytes.Equal(next.envelope, k.held.envelope)
	k.held = next
	if !next.unsaved || k.lock == nil {
		return nil
	}
	var w canon.Writer
	w.Text(1, k.of())
	w.Blob(2, next.envelope)
	if err := replace(k.path(rosterFile), sealed(rosterKind, w.Bytes()), 0o600); err != nil {
		return fmt.Errorf("roster of people's keys is in memory only: %w", err)
	}
	k.held.unsaved = false
	return nil
}
