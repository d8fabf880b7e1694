package grant

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

// goldenWords are words in form, that no passkey said.
func goldenWords() *Words {
	word := Assertion{Key: []byte("key"), Authenticator: []byte("data"), Client: []byte("{}"), Signature: []byte("signature")}
	return &Words{
		Hosts: []string{"db1", "db2"}, Length: 2 * time.Hour, Start: noon, Needed: 1, Shown: make([]byte, 32), Asked: word,
		Approvals: []Approved{{Hosts: []string{"db1"}, Length: time.Hour, Word: word}},
	}
}

func goldenRoster() Roster {
	der, _ := x509.MarshalPKIXPublicKey(public(key("passkey"))) // always marshals
	other, _ := x509.MarshalPKIXPublicKey(public(key("another")))
	return Roster{
		Fleet: "example", Version: 1, Expires: noon, Threshold: 1, Owners: owners("o1"), Party: party, Origins: []string{origin}, Approvals: 1,
		Members:  []Member{{Name: "ana", Keys: []Passkey{{ID: []byte("key"), Public: der}}}, {Name: "ben", Approves: true, Keys: []Passkey{{ID: []byte("yek"), Public: other}}}},
		Accounts: []string{"postgres"}, All: true, Free: []Free{{Role: "look", Digest: make([]byte, 32)}},
	}
}

func TestDemands(t *testing.T) {
	id := []Command{{Path: "/usr/bin/id"}}
	free := Role{Name: "look", RunAs: []string{"root"}, Commands: id}
	s := Roster{Accounts: []string{"postgres"}, Free: []Free{{Role: "look", Digest: free.Digest()}}}
	wider := free
	wider.AnyCommand, wider.Commands = true, nil
	renamed := free
	renamed.Name = "other"
	for _, c := range []struct {
		name string
		s    Roster
		r    Role
		want bool
	}{
		{"commands as root", s, Role{RunAs: []string{"root"}, Commands: id}, true},
		{"any command as root", s, Role{RunAs: []string{"root"}, AnyCommand: true}, true},
		{"commands as an account that the roster names", s, Role{RunAs: []string{"www-data", "postgres"}, Commands: id}, true},
		{"commands as another account", s, Role{RunAs: []string{"www-data"}, Commands: id}, false},
		{"a login alone", s, Role{RunAs: []string{"root"}}, false},
		{"a login alone, where all are", Roster{All: true}, Role{}, true},
		{"a free role", s, free, false},
		{"a free role where all are", Roster{All: true, Free: s.Free}, free, false},
		{"a free role's name on other commands", s, wider, true},
		{"a free role's commands under another name", s, renamed, true},
		{"the zero roster demands of root", Roster{}, free, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.Demands(c.r); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestRostersFollow(t *testing.T) {
	f := newFolk(t)
	first := f.roster
	next := first
	next.Version, next.Owners = 2, owners("o2", "o3", "o4")
	sign := func(s Roster, by ...string) []byte {
		var keys []ed25519.PrivateKey
		for _, k := range by {
			keys = append(keys, key(k))
		}
		return dsse.Sign(RosterType, s.Bytes(), keys...).Bytes()
	}
	with := func(s Roster, change func(*Roster)) Roster { change(&s); return s }
	roots := []ed25519.PublicKey{public(key("root"))}
	for _, c := range []struct {
		name string
		held Roster
		b    []byte
		want error
	}{
		{"the first, by root and a quorum of its owners", Roster{}, sign(first, "root", "o1", "o2"), nil},
		{"the first without root", Roster{}, sign(first, "o1", "o2", "o3"), ErrQuorum},
		{"the first by root alone", Roster{}, sign(first, "root"), ErrQuorum},
		{"a later one where none is held", Roster{}, sign(next, "root", "o2", "o3", "o4"), ErrNotNext},
		{"the next, by those who are owners before and after", first, sign(next, "o2", "o3"), nil},
		{"the next by its own owners, of whom one was owner before", first, sign(next, "o3", "o4"), ErrQuorum},
		{"the next by the owners before, of whom one is owner after", first, sign(next, "o1", "o2"), ErrQuorum},
		{"the next by one owner, twice", first, sign(next, "o2", "o2"), ErrQuorum},
		{"the next by the root and one owner", first, sign(next, "root", "o2"), ErrQuorum},
		{"the next by the grant key", first, sign(next, "grant"), ErrQuorum},
		{"a lower threshold on the word of one", first, sign(with(next, func(s *Roster) { s.Threshold = 1 }), "o2"), ErrQuorum},
		{"other owners on their own word", first, sign(with(next, func(s *Roster) { s.Owners = owners("e1", "e2") }), "e1", "e2"), ErrQuorum},
		{"the same version", first, sign(first, "root", "o1", "o2"), ErrNotNext},
		{"one left out", first, sign(with(next, func(s *Roster) { s.Version = 3 }), "o2", "o3"), ErrNotNext},
		{"of another fleet", first, sign(with(next, func(s *Roster) { s.Fleet = "other" }), "o2", "o3"), ErrOtherFleet},
		{"a grant's envelope", first, dsse.Sign(Type, next.Bytes(), key("o2"), key("o3")).Bytes(), ErrQuorum},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := c.held.Follow(c.b, "example", roots); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%+v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestRosterCheckRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Roster){
		"no owner":                          func(s *Roster) { s.Owners, s.Threshold = nil, 0 },
		"a threshold of none":               func(s *Roster) { s.Threshold = 0 },
		"a threshold that nobody can reach": func(s *Roster) { s.Threshold = 4 },
		"an owner twice":                    func(s *Roster) { s.Owners[1] = s.Owners[0] },
		"a short key":                       func(s *Roster) { s.Owners[0] = s.Owners[0][:31] },
		"version zero":                      func(s *Roster) { s.Version = 0 },
		"no end":                            func(s *Roster) { s.Expires = time.Time{} },
		"no approval":                       func(s *Roster) { s.Approvals = 0 },
		"no origin":                         func(s *Roster) { s.Origins = nil },
		"no relying party":                  func(s *Roster) { s.Party = "" },
		"a person twice":                    func(s *Roster) { s.Members[1].Name = "ana" },
		"a person without a key":            func(s *Roster) { s.Members[0].Keys = nil },
		"one passkey of two people":         func(s *Roster) { s.Members[1].Keys = s.Members[0].Keys },
		"one passkey of two people, by two ids": func(s *Roster) {
			s.Members[1].Keys = []Passkey{{ID: []byte("another id"), Public: s.Members[0].Keys[0].Public}}
		},
		"a public key of no kind":            func(s *Roster) { s.Members[0].Keys = []Passkey{{ID: []byte{1}, Public: []byte{2}}} },
		"an account twice":                   func(s *Roster) { s.Accounts = []string{"postgres", "postgres"} },
		"a free role without a whole digest": func(s *Roster) { s.Free = []Free{{Role: "look", Digest: []byte{1}}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFolk(t).roster
			spoil(&s)
			if err := s.Check(); !errors.Is(err, ErrInvalid) {
				t.Errorf("Check() = %v", err)
			}
			if _, err := ParseRoster(s.Bytes()); err == nil {
				t.Error("ParseRoster took it")
			}
		})
	}
	s := newFolk(t).roster
	got, err := ParseRoster(s.Bytes())
	if diff := cmp.Diff(s, got, exact...); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func FuzzParseRoster(f *testing.F) {
	f.Add(goldenRoster().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseRoster(b)
		if err != nil {
			return
		}
		if err := canon.Same(b, s.Bytes()); err != nil {
			t.Errorf("%x reads as %+v, which is written otherwise", b, s)
		}
	})
}
