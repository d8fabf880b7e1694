// Package sign holds the control plane's signing keys: it signs grants, sets
// of grants and SSH certificates.
//
// It is the only holder of the grant key, and it decides nothing: whoever
// calls it has the right to. The root key, which vouches for grant keys, is
// made here and read again for a rotation, and is never kept in memory.
package sign

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/keyfile"
)

// How long keys stand. An old grant key counts for Overlap after a new one
// came: longer than any grant that it signed can last.
const (
	KeyLife = 2 * 365 * 24 * time.Hour
	Overlap = grant.MaxDuration + 24*time.Hour
)

// skew is how far before now a new key is good, for hosts whose clocks are
// behind.
const skew = 5 * time.Minute

// ErrNoKey means that no file holds the key that the keyring calls for.
var ErrNoKey = errors.New("no file holds the newest grant key of the keyring")

const (
	rootPublicFile = "root.pub"
	sshFile        = "ssh_ca.key"
	grantPrefix    = "grant-" // and the key's id
)

// An Authority signs for a fleet.
type Authority struct {
	fleet string
	root  ed25519.PublicKey
	ring  grant.Keyring
	key   grant.Key
	grant ed25519.PrivateKey
	ssh   ssh.Signer
}

// Init makes the keys of a new fleet: the root key in rootFile, to be taken
// offline, and the others in dir. It returns the envelope of the first
// keyring.
func Init(dir, rootFile, fleet string, now time.Time) ([]byte, error) {
	if err := grant.CheckFleet(fleet); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of keys: %w", err)
	}
	root, err := keyfile.Make(rootFile)
	if err != nil {
		return nil, err
	}
	rootPublic, _ := root.Public().(ed25519.PublicKey)
	if err := keyfile.WritePublic(filepath.Join(dir, rootPublicFile), rootPublic); err != nil {
		return nil, err
	}
	if _, err := keyfile.Make(filepath.Join(dir, sshFile)); err != nil {
		return nil, err
	}
	key, err := makeGrantKey(dir, now)
	if err != nil {
		return nil, err
	}
	ring := grant.Keyring{Fleet: fleet, Version: 1, Keys: []grant.Key{key}}
	return dsse.Sign(grant.KeyringType, ring.Bytes(), root).Bytes(), nil
}

// Rotate makes a new grant key beside the present one, which goes on to count
// for [Overlap], and returns the envelope of the next keyring. Nothing has
// changed until the caller stores that.
func Rotate(dir, rootFile string, ring grant.Keyring, now time.Time) ([]byte, error) {
	root, err := keyfile.Read(rootFile)
	if err != nil {
		return nil, err
	}
	want, err := keyfile.ReadPublic(filepath.Join(dir, rootPublicFile))
	if err != nil {
		return nil, err
	}
	if public, _ := root.Public().(ed25519.PublicKey); !public.Equal(want) {
		return nil, fmt.Errorf("%s holds another key than the root of this fleet", rootFile)
	}
	key, err := makeGrantKey(dir, now)
	if err != nil {
		return nil, err
	}
	end := now.Add(Overlap).Truncate(time.Second)
	next := grant.Keyring{Fleet: ring.Fleet, Version: ring.Version + 1}
	for _, k := range ring.Keys {
		if !now.Before(k.NotAfter) {
			continue
		}
		if k.NotAfter.After(end) {
			k.NotAfter = end
		}
		next.Keys = append(next.Keys, k)
	}
	next.Keys = append(next.Keys, key)
	return dsse.Sign(grant.KeyringType, next.Bytes(), root).Bytes(), nil
}

// Load reads the keys in dir and checks the keyring's envelope with the root.
func Load(dir, fleet string, keyring []byte) (*Authority, error) {
	root, err := keyfile.ReadPublic(filepath.Join(dir, rootPublicFile))
	if err != nil {
		return nil, err
	}
	ring, err := grant.OpenKeyring(keyring, fleet, []ed25519.PublicKey{root})
	if err != nil {
		return nil, err
	}
	if len(ring.Keys) == 0 {
		return nil, ErrNoKey
	}
	a := &Authority{fleet: fleet, root: root, ring: ring, key: ring.Keys[len(ring.Keys)-1]}
	name := filepath.Join(dir, grantPrefix+dsse.KeyID(a.key.Public)+".key")
	if a.grant, err = keyfile.Read(name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	if public, _ := a.grant.Public().(ed25519.PublicKey); !public.Equal(a.key.Public) {
		return nil, fmt.Errorf("%s: %w", name, ErrNoKey)
	}
	ca, err := keyfile.Read(filepath.Join(dir, sshFile))
	if err != nil {
		return nil, err
	}
	if a.ssh, err = ssh.NewSignerFromKey(ca); err != nil {
		return nil, fmt.Errorf("ssh certificate key: %w", err)
	}
	return a, nil
}

// SignGrant returns the grant's envelope.
func (a *Authority) SignGrant(g grant.Grant) []byte {
	return dsse.Sign(grant.Type, g.Bytes(), a.grant).Bytes()
}

// SignSet returns the set's envelope.
func (a *Authority) SignSet(s grant.Set) []byte {
	return dsse.Sign(grant.SetType, s.Bytes(), a.grant).Bytes()
}

// Fleet is the fleet that the keys belong to.
func (a *Authority) Fleet() string { return a.fleet }

// Root is the public half of the root key.
func (a *Authority) Root() ed25519.PublicKey { return a.root }

// Public is the public half of the grant key in use.
func (a *Authority) Public() ed25519.PublicKey { return a.key.Public }

// Keyring is the keyring that was loaded.
func (a *Authority) Keyring() grant.Keyring { return a.ring }

// GoodUntil is the end of the grant key: no host opens what it signed later.
func (a *Authority) GoodUntil() time.Time { return a.key.NotAfter }

func makeGrantKey(dir string, now time.Time) (grant.Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return grant.Key{}, fmt.Errorf("make grant key: %w", err)
	}
	if err := keyfile.Write(filepath.Join(dir, grantPrefix+dsse.KeyID(public)+".key"), private); err != nil {
		return grant.Key{}, err
	}
	now = now.UTC().Truncate(time.Second)
	return grant.Key{Public: public, NotBefore: now.Add(-skew), NotAfter: now.Add(KeyLife)}, nil
}
