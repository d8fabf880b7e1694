package sim

import (
	"crypto/ed25519"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

const (
	fleetName = "example"
	host      = "db1"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func keyOf(name string) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var (
	root, signer, thief = keyOf("root"), keyOf("grant"), keyOf("thief")
	ring                = dsse.Sign(grant.KeyringType, grant.Keyring{
		Fleet: fleetName, Version: 1,
		Keys: []grant.Key{{Public: public(signer), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(1000 * time.Hour)}},
	}.Bytes(), root).Bytes()
	people = []string{"ana", "ben", "cleo"}
)

func uidOf(person string) uint32 {
	for i, p := range people {
		if p == person {
			return grant.UIDMin + uint32(i)
		}
	}
	return 0
}

// An issued grant, and the revision that took it back.
type issued struct {
	grant.Grant
	envelope []byte
	revoked  uint64 // 0: never
}

// A server is the control plane as a host sees it: who signs sets.
type server struct {
	grants   []*issued // ever issued, restored backups or not
	held     []*issued // what it remembers
	revision uint64
	highest  uint64   // revision ever
	ahead    uint64   // the revision that the host keeps, if this database has not given it
	current  []byte   // the host's set
	sets     [][]byte // ever sent
	shelf    shelf
	full     bool          // it takes no records
	report   roster.Report // the host's last

	backup   []*issued
	backedUp uint64
	copied   shelf
	lost     map[string]bool // entries that it has lost by that
	restored bool            // to the backup, and no administrator has gone on from that
}

// issue gives a grant from now, which is the server's own right time.
func (s *server) issue(person string, from, to time.Time, lease, drain time.Duration) *issued {
	var b [10]byte
	binary.BigEndian.PutUint64(b[2:], uint64(len(s.grants)+1))
	id := "g-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	g := grant.Grant{
		ID: id, Fleet: fleetName, Person: grant.Person{Name: person, UID: uidOf(person)}, Hosts: []string{host},
		Role:      grant.Role{Name: "ops", RunAs: []string{"root"}, AnyCommand: true, Drain: drain},
		NotBefore: from.Truncate(time.Second), NotAfter: to.Truncate(time.Second), Lease: lease,
		Request: "r-" + id[2:], Digest: make([]byte, 32), Asked: grant.Evidence{Person: person, Factor: "totp", At: from.Truncate(time.Second)},
	}
	i := &issued{Grant: g, envelope: dsse.Sign(grant.Type, g.Bytes(), signer).Bytes()}
	s.grants, s.held = append(s.grants, i), append(s.held, i)
	s.revision++
	return i
}

func (s *server) revoke(i *issued) {
	s.revision++
	if i.revoked == 0 {
		i.revoked = s.revision
	}
	s.held = without(s.held, i)
}

func without(list []*issued, i *issued) []*issued {
	var rest []*issued
	for _, o := range list {
		if o != i {
			rest = append(rest, o)
		}
	}
	return rest
}

// publish makes what is held now the host's set.
func (s *server) publish(at time.Time) {
	s.highest = max(s.highest, s.revision)
	s.current = s.set(host, signer, at)
	s.sets = append(s.sets, s.current)
}

// set is what is held, for a host and signed by a key.
func (s *server) set(name string, key ed25519.PrivateKey, at time.Time) []byte {
	g := grant.Set{Fleet: fleetName, Host: name, Revision: s.revision, IssuedAt: at.Truncate(time.Second)}
	for _, i := range s.held {
		if i.Drained().After(at) {
			g.Grants = append(g.Grants, i.envelope)
		}
	}
	return dsse.Sign(grant.SetType, g.Bytes(), key).Bytes()
}
