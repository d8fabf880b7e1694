package keep

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

var ownerA, ownerB = key(11), key(12)

// people is a roster of one owner, who names ana.
func people(version uint64, owner ed25519.PrivateKey) grant.Roster {
	der, _ := x509.MarshalPKIXPublicKey(public(key(20))) // always marshals
	return grant.Roster{
		Fleet: "acme", Version: version, Expires: start.Add(time.Hour), Threshold: 1, Owners: []ed25519.PublicKey{public(owner)},
		Party: "curfew.example", Origins: []string{"https://curfew.example"}, Approvals: 1,
		Members: []grant.Member{{Name: "ana", Keys: []grant.Passkey{{ID: []byte("k"), Public: der}}}},
	}
}

func signed(r grant.Roster, by ...ed25519.PrivateKey) []byte {
	return dsse.Sign(grant.RosterType, r.Bytes(), by...).Bytes()
}

// opened is a host that holds a set with a grant of root, and nobody's word for it.
func opened(t *testing.T, dir string) *Keep {
	t.Helper()
	k := open(t, dir)
	o, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start)
	if err != nil {
		t.Fatal(err)
	}
	wantGrants(t, o, 1)
	return k
}

func TestTakeRosters(t *testing.T) {
	first, second := signed(people(1, ownerA), root, ownerA), signed(people(2, ownerB), ownerA, ownerB)
	for _, c := range []struct {
		name   string
		offers [][][]byte
		err    error // of the last offer
		held   uint64
	}{
		{"none", nil, nil, 0},
		{"the first", [][][]byte{{first}}, nil, 1},
		{"both at once", [][][]byte{{first, second}}, nil, 2},
		{"one after the other", [][][]byte{{first}, {second}}, nil, 2},
		{"what is held comes again", [][][]byte{{first, second}, {first, second}}, nil, 2},
		{"the second where the first is missing", [][][]byte{{second}}, grant.ErrNotNext, 0},
		{"the first without the root", [][][]byte{{signed(people(1, ownerA), ownerA)}}, grant.ErrQuorum, 0},
		{"one by the grant key", [][][]byte{{first}, {signed(people(2, keyA), keyA)}}, grant.ErrQuorum, 1},
		{"one by the root", [][][]byte{{first}, {signed(people(2, ownerB), root, ownerB)}}, grant.ErrQuorum, 1},
		{"other content under the same number", [][][]byte{{first}, {signed(people(1, ownerB), root, ownerB)}}, grant.ErrChanged, 1},
		{"as far as they follow", [][][]byte{{first, second, signed(people(3, keyA), keyA)}}, grant.ErrQuorum, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			k := open(t, dir)
			var err error
			for _, o := range c.offers {
				err = k.TakeRosters(o)
			}
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%v, want %v", err, c.err)
			}
			die(k)
			for _, k := range []*Keep{k, open(t, dir)} {
				if got := k.Roster(); got != c.held {
					t.Errorf("version %d is held, want %d", got, c.held)
				}
			}
		})
	}
}

// A roster counts for what is held already: the next look at the same set says
// what falls out, and why, and so does an agent that starts again.
func TestRosterOverTheSetThatIsHeld(t *testing.T) {
	dir := t.TempDir()
	k := opened(t, dir)
	if err := k.TakeRosters([][]byte{signed(people(1, ownerA), root, ownerA)}); err != nil {
		t.Fatal(err)
	}
	o, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start)
	if err != nil || len(o.Refused) != 1 || !errors.Is(o.Refused[0], grant.ErrUnsigned) {
		t.Errorf("%+v, %v", o, err)
	}
	wantGrants(t, o, 0)
	die(k)
	kept, err := open(t, dir).Kept()
	if err != nil {
		t.Error(err)
	}
	wantGrants(t, kept, 0)
}

// Whoever damages the roster is not rid of it: nothing stands until it has come
// again, and the way back is the first version.
func TestDamagedRoster(t *testing.T) {
	dir := t.TempDir()
	k := opened(t, dir)
	free := people(1, ownerA)
	free.Free = []grant.Free{{Role: "db-admin", Digest: grant.Role{Name: "db-admin", RunAs: []string{"root"}, AnyCommand: true}.Digest()}}
	if err := k.TakeRosters([][]byte{signed(free, root, ownerA)}); err != nil {
		t.Fatal(err)
	}
	die(k)
	file := filepath.Join(dir, rosterFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Open(config(dir, &fixed{clock.Reading{Wall: start}}))
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := k.Kept(); len(o.Grants) != 0 || k.Roster() != 0 {
			t.Fatalf("with byte %d changed, %d grants stand under roster %d", i, len(o.Grants), k.Roster())
		}
		die(k)
	}
	k = open(t, dir)
	if err := k.TakeRosters([][]byte{signed(free, root, ownerA)}); err != nil {
		t.Fatal(err)
	}
	o, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start)
	if err != nil {
		t.Error(err)
	}
	wantGrants(t, o, 1)
}

// A machine that joins another fleet does not bring the roster of its old one.
func TestRosterOfAnotherFleet(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	if err := k.TakeRosters([][]byte{signed(people(1, ownerA), root, ownerA)}); err != nil {
		t.Fatal(err)
	}
	die(k)
	c := config(dir, &fixed{clock.Reading{Wall: start}})
	c.Roots = []ed25519.PublicKey{public(keyB)}
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer die(k)
	if v := k.Roster(); v != 0 {
		t.Errorf("version %d of a fleet with another root is held", v)
	}
}
