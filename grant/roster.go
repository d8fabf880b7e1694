package grant

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// RosterType names a roster in its envelope.
const RosterType = "application/vnd.curfew.roster.v1"

// Bounds of a roster.
const (
	maxOwners  = 12 // those of two versions and a root sign one envelope
	maxMembers = 5000
	maxKeys    = 16 // of one person
)

// Reasons for which a roster does not take the place of the one that is held.
var (
	ErrNotNext = errors.New("not the next version of the roster that is held")
	ErrQuorum  = errors.New("too few owners signed the roster")
)

// A Roster says on a host whose passkeys count, and what they have to sign
// for. The control plane passes it on, and cannot make one: a version is
// signed by a quorum of the owners whom the version before names.
type Roster struct {
	Fleet     string
	Version   uint64
	Expires   time.Time           // whole seconds, UTC; excluded
	Threshold uint64              // owners who have to sign
	Owners    []ed25519.PublicKey // sorted
	Party     string              // relying party of the passkeys
	Origins   []string            // of the pages on which they answer
	Approvals uint64              // that a signed grant has at least
	Members   []Member            // sorted by their names
	Accounts  []string            // besides root: a grant of commands that run as one of them is signed; sorted
	All       bool                // every grant is
	Free      []Free              // roles whose grants need not be; sorted by their names
}

// A Member is a person whose passkeys count.
type Member struct {
	Name     string
	Approves bool // her yes counts; else she can only ask
	Keys     []Passkey
}

// A Passkey is the public half of a WebAuthn credential.
type Passkey struct {
	ID     []byte
	Public []byte // SubjectPublicKeyInfo, DER
}

// A Free role is told by all that it says, and not by its name alone.
type Free struct {
	Role   string
	Digest []byte // see [Role.Digest]
}

// Digest tells the role, as it stands, from every other.
func (r Role) Digest() []byte {
	sum := sha256.Sum256(r.bytes())
	return sum[:]
}

// Demands reports whether a grant of the role has to be signed by people,
// whatever the control plane says of it: the name of a role and the mark on it
// are the control plane's word, what its commands run as is what the host does.
func (s Roster) Demands(r Role) bool {
	if slices.ContainsFunc(s.Free, func(f Free) bool { return f.Role == r.Name && bytes.Equal(f.Digest, r.Digest()) }) {
		return false
	}
	return s.All || (r.AnyCommand || len(r.Commands) > 0) &&
		slices.ContainsFunc(r.RunAs, func(a string) bool { return a == "root" || slices.Contains(s.Accounts, a) })
}

// member is the person of the name; none, if the roster does not name her.
func (s Roster) member(name string) (Member, bool) {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return s.Members[i], true
}

// ParseRoster reads a roster that nobody has signed yet, and checks it.
func ParseRoster(b []byte) (Roster, error) {
	var s Roster
	err := canon.Read(b, s.field)
	if err == nil {
		err = canon.Same(b, s.Bytes())
	}
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return Roster{}, fmt.Errorf("roster: %w", err)
	}
	return s, nil
}

// OpenRoster opens a roster of the fleet that a quorum of its own owners
// signed. That alone does not make it count: see [Roster.Follow].
func OpenRoster(envelope []byte, fleet string) (Roster, error) {
	e, err := dsse.Parse(envelope)
	if err != nil {
		return Roster{}, fmt.Errorf("roster: %w", err)
	}
	s, err := ParseRoster(e.Payload)
	if err != nil {
		return Roster{}, err
	}
	if s.Fleet != fleet {
		return Roster{}, fmt.Errorf("roster: %s: %w", quote(s.Fleet), ErrOtherFleet)
	}
	return s, quorum(envelope, s.Threshold, s.Owners)
}

// quorum reports whether enough of the keys signed the envelope.
func quorum(envelope []byte, need uint64, keys []ed25519.PublicKey) error {
	_, err := dsse.Verify(envelope, RosterType, int(min(need, maxOwners+1)), func(id string) ed25519.PublicKey {
		for _, k := range keys {
			if dsse.KeyID(k) == id {
				return k
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuorum, err)
	}
	return nil
}

// Follow opens the envelope as the version after s: signed by a quorum of the
// owners of s, and by one of its own. Where no roster is held, s is the zero
// value, and the first version is signed by one of the fleet's roots.
func (s Roster) Follow(envelope []byte, fleet string, roots []ed25519.PublicKey) (Roster, error) {
	next, err := OpenRoster(envelope, fleet)
	if err != nil {
		return Roster{}, err
	}
	if next.Version != s.Version+1 {
		return Roster{}, fmt.Errorf("roster: version %d after %d: %w", next.Version, s.Version, ErrNotNext)
	}
	need, keys := s.Threshold, s.Owners
	if s.Version == 0 {
		need, keys = 1, roots
	}
	return next, quorum(envelope, need, keys)
}

// Check reports everything in s that no roster may hold.
func (s Roster) Check() error {
	errs := []error{CheckFleet(s.Fleet), s.checkOwners(), CheckText("relying party", s.Party, 253)}
	if s.Version == 0 {
		errs = append(errs, errors.New("versions count from one"))
	}
	if s.Expires.IsZero() || s.Expires.Nanosecond() != 0 || s.Expires.Location() != time.UTC || s.Expires.Unix() < 0 {
		errs = append(errs, errors.New("a roster expires at a whole second, in UTC"))
	}
	if s.Party == "" || len(s.Origins) == 0 {
		errs = append(errs, errors.New("a roster names the relying party of its passkeys, and the origins of its pages"))
	}
	for _, o := range s.Origins {
		errs = append(errs, CheckText("origin", o, 300))
	}
	if s.Approvals < 1 || s.Approvals > 10 {
		errs = append(errs, errors.New("a signed grant needs 1 to 10 approvals"))
	}
	for i, a := range s.Accounts {
		errs = append(errs, CheckAccount(a))
		if i > 0 && s.Accounts[i-1] >= a {
			errs = append(errs, errors.New("accounts are sorted and each named once"))
		}
	}
	for i, f := range s.Free {
		errs = append(errs, CheckRole(f.Role))
		if len(f.Digest) != sha256.Size || i > 0 && s.Free[i-1].Role >= f.Role {
			errs = append(errs, errors.New("free roles are sorted, each named once, with a digest of 32 bytes"))
		}
	}
	if err := errors.Join(append(errs, s.checkMembers())...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (s Roster) checkOwners() error {
	if s.Threshold < 1 || s.Threshold > uint64(len(s.Owners)) || len(s.Owners) > maxOwners {
		return fmt.Errorf("%d of %d owners sign: there are 1 to %d owners, and one of them signs at least", s.Threshold, len(s.Owners), maxOwners)
	}
	for i, o := range s.Owners {
		if len(o) != ed25519.PublicKeySize || i > 0 && bytes.Compare(s.Owners[i-1], o) >= 0 {
			return errors.New("owners are Ed25519 keys, sorted, and each named once")
		}
	}
	return nil
}

func (s Roster) checkMembers() error {
	if len(s.Members) > maxMembers {
		return fmt.Errorf("over %d people", maxMembers)
	}
	var errs []error
	// A passkey's signature does not say by which id it was asked for: under two
	// of them one person's touch would count for two people.
	ids, publics := map[string]bool{}, map[string]bool{}
	for i, m := range s.Members {
		errs = append(errs, CheckPerson(m.Name))
		if i > 0 && s.Members[i-1].Name >= m.Name {
			errs = append(errs, errors.New("people are sorted and each named once"))
		}
		if len(m.Keys) < 1 || len(m.Keys) > maxKeys {
			errs = append(errs, fmt.Errorf("%s has %d passkeys: 1 to %d can be named", m.Name, len(m.Keys), maxKeys))
		}
		for _, k := range m.Keys {
			if len(k.ID) < 1 || len(k.ID) > maxPart || ids[string(k.ID)] || publics[string(k.Public)] {
				errs = append(errs, fmt.Errorf("%s: a passkey without an id, or one that is named twice", m.Name))
			}
			ids[string(k.ID)], publics[string(k.Public)] = true, true
			if _, err := publicKey(k.Public); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Bytes is the roster's canonical form.
func (s Roster) Bytes() []byte {
	var w canon.Writer
	w.Text(1, s.Fleet)
	w.Uint(2, s.Version)
	w.Seconds(3, s.Expires)
	w.Uint(4, s.Threshold)
	for _, o := range s.Owners {
		w.Item(5, o)
	}
	w.Text(6, s.Party)
	w.Texts(7, s.Origins)
	w.Uint(8, s.Approvals)
	for _, m := range s.Members {
		w.Item(9, m.bytes())
	}
	w.Texts(10, s.Accounts)
	w.Bool(11, s.All)
	for _, f := range s.Free {
		var fw canon.Writer
		fw.Text(1, f.Role)
		fw.Blob(2, f.Digest)
		w.Item(12, fw.Bytes())
	}
	return w.Bytes()
}

func (s *Roster) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&s.Fleet)
	case 2:
		return f.Uint(&s.Version)
	case 3:
		return f.Seconds(&s.Expires)
	case 4:
		return f.Uint(&s.Threshold)
	case 5:
		var b []byte
		err := f.Blob(&b)
		s.Owners = append(s.Owners, b)
		return err
	case 6:
		return f.Text(&s.Party)
	case 7:
		return f.Texts(&s.Origins)
	case 8:
		return f.Uint(&s.Approvals)
	case 9:
		var m Member
		err := f.Message(m.field)
		s.Members = append(s.Members, m)
		return err
	case 10:
		return f.Texts(&s.Accounts)
	case 11:
		return f.Bool(&s.All)
	case 12:
		var free Free
		err := f.Message(free.field)
		s.Free = append(s.Free, free)
		return err
	}
	return f.Unknown()
}

func (m Member) bytes() []byte {
	var w canon.Writer
	w.Text(1, m.Name)
	w.Bool(2, m.Approves)
	for _, k := range m.Keys {
		var kw canon.Writer
		kw.Blob(1, k.ID)
		kw.Blob(2, k.Public)
		w.Item(3, kw.Bytes())
	}
	return w.Bytes()
}

func (m *Member) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&m.Name)
	case 2:
		return f.Bool(&m.Approves)
	case 3:
		var k Passkey
		err := f.Message(k.field)
		m.Keys = append(m.Keys, k)
		return err
	}
	return f.Unknown()
}

func (k *Passkey) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Blob(&k.ID)
	case 2:
		return f.Blob(&k.Public)
	}
	return f.Unknown()
}

func (r *Free) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&r.Role)
	case 2:
		return f.Blob(&r.Digest)
	}
	return f.Unknown()
}
