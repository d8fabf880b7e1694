package sign

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // to see it refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"curfew.internal/grant"
	"curfew.internal/keyfile"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sample() grant.Grant {
	return grant.Grant{
		ID: "g-abcdefghijklmnop", Fleet: "lab", Person: grant.Person{Name: "ana", UID: 70001},
		Role: grant.Role{Name: "db-admin"}, Hosts: []string{"db1"}, NotBefore: noon, NotAfter: noon.Add(time.Hour),
		Request: "r-abcdefghijklmnop", Digest: make([]byte, 32),
		Asked: grant.Evidence{Person: "ana", Factor: "totp", At: noon},
	}
}

func setup(t *testing.T) (dir, root string, ring []byte) {
	t.Helper()
	dir, root = filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "root.key")
	ring, err := Init(dir, root, "lab", noon)
	if err != nil {
		t.Fatal(err)
	}
	return dir, root, ring
}

func TestHostOpensWhatIsSigned(t *testing.T) {
	dir, _, ring := setup(t)
	a, err := Load(dir, "lab", ring)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := grant.OpenKeyring(ring, "lab", []ed25519.PublicKey{a.Root()})
	if err != nil {
		t.Fatal(err)
	}
	set := a.SignSet(grant.Set{Fleet: "lab", Host: "db1", Revision: 1, IssuedAt: noon, Grants: [][]byte{a.SignGrant(sample())}})
	o, err := grant.Reader{Fleet: "lab", Host: "db1", Ring: opened}.Open(set, noon)
	if err != nil || len(o.Grants) != 1 || len(o.Refused) != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
}

func TestRotation(t *testing.T) {
	dir, root, first := setup(t)
	before, err := Load(dir, "lab", first)
	if err != nil {
		t.Fatal(err)
	}
	later := noon.Add(24 * time.Hour)
	second, err := Rotate(dir, root, before.Keyring(), later)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Load(dir, "lab", second)
	if err != nil {
		t.Fatal(err)
	}
	if after.Keyring().Version != 2 || bytes.Equal(before.key.Public, after.key.Public) {
		t.Fatal("no new key, or no new version")
	}
	g := sample()
	old, fresh := before.SignSet(grant.Set{Fleet: "lab", Host: "db1", Revision: 1, Grants: [][]byte{before.SignGrant(g)}}),
		after.SignSet(grant.Set{Fleet: "lab", Host: "db1", Revision: 2, Grants: [][]byte{after.SignGrant(g)}})
	reader := grant.Reader{Fleet: "lab", Host: "db1", Ring: after.Keyring()}
	for name, set := range map[string][]byte{"old": old, "new": fresh} {
		if _, err := reader.Open(set, later); err != nil {
			t.Errorf("%s key within the overlap: %v", name, err)
		}
	}
	end := later.Add(Overlap)
	if _, err := reader.Open(old, end); err == nil {
		t.Error("the old key counts after the overlap")
	}
	if _, err := reader.Open(fresh, end); err != nil {
		t.Errorf("the new key after the overlap: %v", err)
	}
	// The keyring in the database is the commit point: with the old one the
	// old key still signs, whatever files are there.
	if again, err := Load(dir, "lab", first); err != nil || !bytes.Equal(again.key.Public, before.key.Public) {
		t.Errorf("first keyring again: %v", err)
	}
}

func TestKeysAreNotWrittenOver(t *testing.T) {
	dir, root, ring := setup(t)
	if _, err := Init(dir, root, "lab", noon); !errors.Is(err, os.ErrExist) {
		t.Errorf("second init: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := keyfile.Make(other); err != nil {
		t.Fatal(err)
	}
	a, err := Load(dir, "lab", ring)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir, other, a.Keyring(), noon); err == nil {
		t.Error("rotated with the root of somebody else")
	}
	if _, err := Load(dir, "other", ring); !errors.Is(err, grant.ErrOtherFleet) {
		t.Errorf("other fleet: %v", err)
	}
	info, err := os.Stat(root)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the root key: %v, %v", info, err)
	}
}

func TestSignUser(t *testing.T) {
	dir, _, ring := setup(t)
	a, err := Load(dir, "lab", ring)
	if err != nil {
		t.Fatal(err)
	}
	text := func(k crypto.PublicKey) string {
		p, err := ssh.NewPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(ssh.MarshalAuthorizedKey(p))
	}
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	modulus := func(bits uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(bits-1), 1) }
	for _, c := range []struct {
		name, key string
		want      error
	}{
		{"ed25519", text(ed), nil},
		{"ecdsa", text(&ec.PublicKey), nil},
		{"rsa of 3072", text(&rsa.PublicKey{N: modulus(3072), E: 65537}), nil},
		{"rsa of 2048", text(&rsa.PublicKey{N: modulus(2048), E: 65537}), ErrUserKey},
		{"dsa", text(&dsa.PublicKey{Parameters: dsa.Parameters{P: modulus(1024), Q: modulus(160), G: big.NewInt(2)}, Y: big.NewInt(4)}), ErrUserKey},
		{"options", `command="x" ` + text(ed), ErrUserKey},
		{"two keys", text(ed) + text(ed), ErrUserKey},
		{"nothing", "", ErrUserKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, err := a.SignUser(c.key, sample(), noon)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				checkCert(t, a, cert)
			}
		})
	}
	strict := sample()
	strict.Role.Strict = true
	narrow, err := a.SignUser(text(ed), strict, noon)
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(narrow))
	if has := key.(*ssh.Certificate).Extensions; len(has) != 1 || has["permit-pty"] != "" {
		t.Errorf("a role for recorded terminals alone permits %v", has)
	}
	cert, _ := a.SignUser(text(ed), sample(), noon)
	if _, err := a.SignUser(cert, sample(), noon); !errors.Is(err, ErrUserKey) {
		t.Errorf("a certificate as a key: %v", err)
	}
}

func checkCert(t *testing.T, a *Authority, text string) {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cert := key.(*ssh.Certificate)
	at := noon
	checker := ssh.CertChecker{Clock: func() time.Time { return at }, IsUserAuthority: func(k ssh.PublicKey) bool {
		return bytes.Equal(k.Marshal(), a.ssh.PublicKey().Marshal())
	}}
	if err := checker.CheckCert("g-abcdefghijklmnop", cert); err != nil {
		t.Error(err)
	}
	if err := checker.CheckCert("ana", cert); err == nil {
		t.Error("the account's name is a principal")
	}
	at = noon.Add(time.Hour)
	if err := checker.CheckCert("g-abcdefghijklmnop", cert); err == nil {
		t.Error("stands at the grant's end")
	}
	if len(cert.Extensions) != 2 || len(cert.CriticalOptions) != 0 {
		t.Errorf("permissions: %+v", cert.Permissions)
	}
}
