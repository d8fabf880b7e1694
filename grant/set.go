package grant

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// Types of the two messages that carry grants to a host.
const (
	SetType     = "application/vnd.curfew.set.v1"
	KeyringType = "application/vnd.curfew.keyring.v1"
)

// Reasons for which a set or a keyring is refused.
var (
	ErrOtherFleet = errors.New("made for another fleet")
	ErrOtherHost  = errors.New("made for another host")
	ErrRollback   = errors.New("older than what is kept")
	ErrChanged    = errors.New("same revision as what is kept, but other content")
)

// A Key may sign grants and sets from NotBefore up to NotAfter, excluded.
type Key struct {
	Public    ed25519.PublicKey
	NotBefore time.Time
	NotAfter  time.Time
}

// A Keyring is the grant keys that the root vouches for. The root signs a new
// version when a key comes or goes; a key that is in no newer version no
// longer counts.
type Keyring struct {
	Fleet   string
	Version uint64
	Keys    []Key
}

// Key returns the public key with the id if it may sign at that instant, or
// nil.
func (k Keyring) Key(id string, at time.Time) ed25519.PublicKey {
	for _, key := range k.Keys {
		if dsse.KeyID(key.Public) == id && !at.Before(key.NotBefore) && at.Before(key.NotAfter) {
			return key.Public
		}
	}
	return nil
}

// Bytes is the keyring's canonical form.
func (k Keyring) Bytes() []byte {
	var w canon.Writer
	w.Text(1, k.Fleet)
	w.Uint(2, k.Version)
	for _, key := range k.Keys {
		var kw canon.Writer
		kw.Blob(1, key.Public)
		kw.Seconds(2, key.NotBefore)
		kw.Seconds(3, key.NotAfter)
		w.Item(3, kw.Bytes())
	}
	return w.Bytes()
}

// OpenKeyring checks that one of the roots signed the envelope for the fleet,
// and returns the keyring in it.
func OpenKeyring(envelope []byte, fleet string, roots []ed25519.PublicKey) (Keyring, error) {
	payload, err := dsse.Verify(envelope, KeyringType, 1, func(id string) ed25519.PublicKey {
		for _, r := range roots {
			if dsse.KeyID(r) == id {
				return r
			}
		}
		return nil
	})
	if err != nil {
		return Keyring{}, fmt.Errorf("keyring: %w", err)
	}
	var k Keyring
	err = canon.Read(payload, k.field)
	if err == nil {
		err = canon.Same(payload, k.Bytes())
	}
	if err == nil && k.Fleet != fleet {
		err = fmt.Errorf("%s: %w", quote(k.Fleet), ErrOtherFleet)
	}
	if err != nil {
		return Keyring{}, fmt.Errorf("keyring: %w", err)
	}
	return k, nil
}

func (k *Keyring) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&k.Fleet)
	case 2:
		return f.Uint(&k.Version)
	case 3:
		var key Key
		err := f.Message(key.field)
		if err == nil && len(key.Public) != ed25519.PublicKeySize {
			err = fmt.Errorf("public key of %d bytes: %w", len(key.Public), canon.ErrMalformed)
		}
		k.Keys = append(k.Keys, key)
		return err
	}
	return f.Unknown()
}

func (k *Key) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Blob((*[]byte)(&k.Public))
	case 2:
		return f.Seconds(&k.NotBefore)
	case 3:
		return f.Seconds(&k.NotAfter)
	}
	return f.Unknown()
}

// A Set is every grant of one host at one revision: a grant that is not in it
// does not stand there.
type Set struct {
	Fleet    string
	Host     string
	Revision uint64
	IssuedAt time.Time // whole seconds, UTC
	Grants   [][]byte  // envelopes of grants, verbatim
}

// Bytes is the set's canonical form.
func (s Set) Bytes() []byte {
	var w canon.Writer
	w.Text(1, s.Fleet)
	w.Text(2, s.Host)
	w.Uint(3, s.Revision)
	w.Seconds(4, s.IssuedAt)
	for _, g := range s.Grants {
		w.Item(5, g)
	}
	return w.Bytes()
}

func (s *Set) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&s.Fleet)
	case 2:
		return f.Text(&s.Host)
	case 3:
		return f.Uint(&s.Revision)
	case 4:
		return f.Seconds(&s.IssuedAt)
	case 5:
		var b []byte
		err := f.Blob(&b)
		s.Grants = append(s.Grants, b)
		return err
	}
	return f.Unknown()
}

// Opened is a set whose signatures were checked.
type Opened struct {
	Revision uint64
	IssuedAt time.Time
	Grants   []Grant
	// Refused says for each grant of the set that does not count why. The
	// others stand: a grant too few is safer than a set that cannot take
	// away.
	Refused []error
}

// A Reader is a host that opens sets: who it is and whom it trusts.
type Reader struct {
	Fleet, Host string
	Ring        Keyring
	Roster      *Roster // of people's keys; nil: this host has none
}

// Open checks that the envelope holds a set for this host, signed by a key
// that the ring vouches for at the instant, and opens the grants in it.
func (r Reader) Open(envelope []byte, at time.Time) (Opened, error) {
	payload, err := dsse.Verify(envelope, SetType, 1, func(id string) ed25519.PublicKey { return r.Ring.Key(id, at) })
	if err != nil {
		return Opened{}, fmt.Errorf("grant set: %w", err)
	}
	var s Set
	err = canon.Read(payload, s.field)
	if err == nil {
		err = canon.Same(payload, s.Bytes())
	}
	if err == nil && s.Fleet != r.Fleet {
		err = fmt.Errorf("%s: %w", quote(s.Fleet), ErrOtherFleet)
	}
	if err == nil && s.Host != r.Host {
		err = fmt.Errorf("%s: %w", quote(s.Host), ErrOtherHost)
	}
	if err != nil {
		return Opened{}, fmt.Errorf("grant set: %w", err)
	}
	o := Opened{Revision: s.Revision, IssuedAt: s.IssuedAt}
	ids := map[string]bool{}
	for _, b := range s.Grants {
		g, err := r.openGrant(b, at)
		if err == nil && ids[g.ID] {
			err = fmt.Errorf("grant %s: twice in one set", g.ID)
		}
		if err != nil {
			o.Refused = append(o.Refused, err)
			continue
		}
		ids[g.ID] = true
		o.Grants = append(o.Grants, g)
	}
	return o, nil
}

func (r Reader) openGrant(envelope []byte, at time.Time) (Grant, error) {
	payload, err := dsse.Verify(envelope, Type, 1, func(id string) ed25519.PublicKey { return r.Ring.Key(id, at) })
	if err != nil {
		return Grant{}, fmt.Errorf("grant: %w", err)
	}
	g, err := Parse(payload)
	if err != nil {
		return Grant{}, err
	}
	if g.Fleet != r.Fleet {
		return Grant{}, fmt.Errorf("grant %s: %w", g.ID, ErrOtherFleet)
	}
	if !g.On(r.Host) {
		return Grant{}, fmt.Errorf("grant %s: %w", g.ID, ErrOtherHost)
	}
	if err := r.CheckSigned(g, at); err != nil {
		return Grant{}, fmt.Errorf("grant %s of %s to %s: %w", g.ID, g.Role.Name, g.Person.Name, err)
	}
	return g, nil
}
