package keep

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/clock"
	"curfew.internal/dsse"
	"curfew.internal/grant"
)

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var root, keyA, keyB = key(1), key(2), key(3)

// ring is a keyring in which each key counts for an hour from start.
func ring(version uint64, signer ed25519.PrivateKey, keys ...ed25519.PrivateKey) []byte {
	r := grant.Keyring{Fleet: "acme", Version: version}
	for _, k := range keys {
		r.Keys = append(r.Keys, grant.Key{Public: public(k), NotBefore: start, NotAfter: start.Add(time.Hour)})
	}
	return dsse.Sign(grant.KeyringType, r.Bytes(), signer).Bytes()
}

// set holds one grant, named by the revision.
func set(revision uint64, host string, signer ed25519.PrivateKey) []byte {
	g := grant.Grant{
		ID: "g-" + string(bytes.Repeat([]byte{'a' + byte(revision)}, 16)), Fleet: "acme",
		Person: grant.Person{Name: "ana", UID: grant.UIDMin}, Role: grant.Role{Name: "db-admin", RunAs: []string{"root"}, AnyCommand: true},
		Hosts: []string{host}, NotBefore: start, NotAfter: start.Add(24 * time.Hour),
		Request: "r-aaaaaaaaaaaaaaaa", Digest: make([]byte, 32), Reason: "x",
		Asked: grant.Evidence{Person: "ana", Factor: "totp", At: start}, Approvals: []grant.Evidence{{Person: "ben", Factor: "totp", At: start}},
	}
	s := grant.Set{Fleet: "acme", Host: host, Revision: revision, IssuedAt: start}
	s.Grants = [][]byte{dsse.Sign(grant.Type, g.Bytes(), signer).Bytes()}
	return dsse.Sign(grant.SetType, s.Bytes(), signer).Bytes()
}

// A fixed clock is set by the test.
type fixed struct{ now clock.Reading }

func (f *fixed) Now() clock.Reading                   { return f.now }
func (*fixed) After(d time.Duration) <-chan time.Time { return time.After(d) }
func config(dir string, c clock.Clock) Config {
	return Config{Dir: dir, Fleet: "acme", Host: "db1", Boot: "boot-1", Roots: []ed25519.PublicKey{public(root)}, Clock: c}
}

func open(t *testing.T, dir string) *Keep {
	t.Helper()
	k, err := Open(config(dir, &fixed{clock.Reading{Wall: start, Boot: time.Hour}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { die(k) })
	return k
}

// die is what is left of an agent that was killed.
func die(k *Keep) { _ = k.unlock() }

func wantGrants(t *testing.T, o grant.Opened, n int) {
	t.Helper()
	if len(o.Grants) != n {
		t.Fatalf("%d grants stand, want %d (refused: %v)", len(o.Grants), n, o.Refused)
	}
}

func TestAccept(t *testing.T) {
	type offer struct {
		ring, set []byte
		at        time.Duration
		err       error
		any       bool // refused for a reason without a name
		grants    int
		revision  uint64
	}
	ringA, setA := ring(1, root, keyA), set(3, "db1", keyA)
	tests := []struct {
		name   string
		offers []offer
	}{
		{"a first set", []offer{{ring: ringA, set: setA, grants: 1, revision: 3}}},
		{"a newer set", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ringA, set: set(4, "db1", keyA), grants: 1, revision: 4},
		}},
		{"the same set again, its key run out meanwhile", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ringA, set: setA, at: 2 * time.Hour, grants: 1, revision: 3},
		}},
		{"a new set by a key that ran out", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ringA, set: set(4, "db1", keyA), at: 2 * time.Hour, err: dsse.ErrSignatures, grants: 1, revision: 3},
		}},
		{"a set by a key that does not count yet", []offer{{ring: ringA, set: setA, at: -time.Minute, err: dsse.ErrSignatures}}},
		{"an older set", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ringA, set: set(2, "db1", keyA), err: grant.ErrRollback, grants: 1, revision: 3},
		}},
		{"the same revision with other content", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ring(2, root, keyA, keyB), set: set(3, "db1", keyB), err: grant.ErrChanged, grants: 1, revision: 3},
		}},
		{"another host's set", []offer{{ring: ringA, set: set(3, "web1", keyA), err: grant.ErrOtherHost}}},
		{"revision zero", []offer{{ring: ringA, set: set(0, "db1", keyA), err: grant.ErrRollback}}},
		{"a set by a key that no ring names", []offer{{ring: ringA, set: set(3, "db1", keyB), err: dsse.ErrSignatures}}},
		{"a keyring by a strange root", []offer{{ring: ring(1, keyB, keyA), set: setA, err: dsse.ErrSignatures}}},
		{"a keyring version zero", []offer{{ring: ring(0, root, keyA), set: setA, err: grant.ErrRollback}}},
		{"an older keyring", []offer{
			{ring: ring(2, root, keyA), set: setA, grants: 1, revision: 3},
			{ring: ringA, set: set(4, "db1", keyA), err: grant.ErrRollback, grants: 1, revision: 3},
		}},
		{"the same keyring version with other keys", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ring(1, root, keyA, keyB), set: set(4, "db1", keyB), err: grant.ErrChanged, grants: 1, revision: 3},
		}},
		{"garbage", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: []byte("x"), set: setA, any: true, grants: 1, revision: 3},
			{ring: ringA, set: nil, any: true, grants: 1, revision: 3},
			{ring: ringA, set: make([]byte, 10<<20), err: dsse.ErrTooLarge, grants: 1, revision: 3},
		}},
		{"a newer keyring that drops the key ends what it signed, whatever set comes with it", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ring(2, root, keyB), set: []byte("x"), any: true, grants: 0, revision: 3},
			{ring: ring(2, root, keyB), set: set(2, "db1", keyB), err: grant.ErrRollback, grants: 0, revision: 3},
			{ring: ring(2, root, keyB), set: set(4, "db1", keyB), grants: 1, revision: 4},
		}},
		{"a newer keyring that keeps the key, with the set kept", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ring(2, root, keyA, keyB), set: setA, grants: 1, revision: 3},
		}},
		{"a newer keyring that drops the key, with the set kept", []offer{
			{ring: ringA, set: setA, grants: 1, revision: 3},
			{ring: ring(2, root, keyB), set: setA, err: dsse.ErrSignatures, grants: 0, revision: 3},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			k := open(t, dir)
			for i, o := range tt.offers {
				got, err := k.Accept(o.ring, o.set, start.Add(o.at))
				if o.any && err == nil || !o.any && !errors.Is(err, o.err) {
					t.Fatalf("offer %d: %v, want %v", i, err, o.err)
				}
				wantGrants(t, got, o.grants)
				if r, _ := k.Versions(); r != o.revision {
					t.Fatalf("offer %d: revision %d is kept, want %d", i, r, o.revision)
				}
				again := open(t, dir)
				kept, _ := again.Kept()
				wantGrants(t, kept, o.grants)
				if r, _ := again.Versions(); r != o.revision {
					t.Fatalf("offer %d: revision %d after a restart, want %d", i, r, o.revision)
				}
			}
		})
	}
}

// Each damage to the file takes all grants, says so, and lets the control
// plane send anew.
func TestDamagedState(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	ringA, setA := ring(1, root, keyA), set(3, "db1", keyA)
	if _, err := k.Accept(ringA, setA, start); err != nil {
		t.Fatal(err)
	}
	die(k)
	file := filepath.Join(dir, stateFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(whole)
		if i := rapid.IntRange(0, len(whole)-1).Draw(t, "at"); rapid.Bool().Draw(t, "cut") {
			bad = bad[:i]
		} else {
			bad[i] ^= rapid.ByteRange(1, 255).Draw(t, "flip")
		}
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Open(config(dir, &fixed{clock.Reading{Wall: start}}))
		if err != nil {
			t.Fatal(err)
		}
		defer die(k)
		o, err := k.Kept()
		if len(o.Grants) != 0 || err == nil {
			t.Fatalf("%d grants from a damaged file, error %v", len(o.Grants), err)
		}
		if o, err = k.Accept(ringA, setA, start); err != nil || len(o.Grants) != 1 {
			t.Fatalf("anew: %v", err)
		}
	})
}

// A sweep beside an agent that hangs reads what is kept, and writes nothing
// under it.
func TestSecondProcessOnlyReads(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	if _, err := first.Accept(ring(1, root, keyA), set(3, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	if err := first.Append(entry(1)); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	o, err := second.Kept()
	wantGrants(t, o, 1)
	if err != nil {
		t.Error(err)
	}
	if err := second.Append(entry(2)); !errors.Is(err, ErrHeld) {
		t.Errorf("append: %v", err)
	}
	if _, err := second.Accept(ring(1, root, keyA), set(4, "db1", keyA), start); err != nil {
		t.Error(err)
	}
	die(second)
	if err := first.Append(entry(3)); err != nil {
		t.Error(err)
	}
	die(first)
	again := open(t, dir)
	if o, _ := again.Kept(); o.Revision != 3 || len(all(t, again.outbox, 0)) != 2 {
		t.Errorf("revision %d, %d records", o.Revision, len(all(t, again.outbox, 0)))
	}
}

// A disk that takes no lock, and no outbox, still says what stands.
func TestWhatCannotBeWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	if _, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	c := k.Config
	die(k)
	for _, name := range []string{lockName, "outbox"} { // a folder, and a file, in the way
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, lockName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "outbox"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c); err == nil {
		t.Fatal("it could be written")
	}
	c.Unwritten = true
	read, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	o, err := read.Kept()
	wantGrants(t, o, 1)
	if err := errors.Join(err, read.Close()); err != nil && !errors.Is(err, ErrHeld) {
		t.Error(err)
	}
}

func TestOtherIdentityIsNotBound(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	if _, err := k.Accept(ring(9, root, keyA), set(9, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	die(k)
	c := config(dir, &fixed{clock.Reading{Wall: start}})
	c.Host = "db2"
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer die(k)
	if o, err := k.Kept(); !errors.Is(err, grant.ErrOtherHost) || len(o.Grants) != 0 {
		t.Errorf("kept: %v", err)
	}
	if _, err := k.Accept(ring(1, root, keyA), set(1, "db2", keyA), start); err != nil {
		t.Error(err)
	}
}

// A disk that takes nothing does not keep a revocation from counting.
func TestAcceptOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	if _, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	// A folder in the way makes every write fail, for root too.
	block := filepath.Join(dir, "."+stateFile+".new")
	if err := os.MkdirAll(filepath.Join(block, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Accept(ring(1, root, keyA), set(4, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	if o, _ := k.Kept(); o.Revision != 4 {
		t.Errorf("revision %d counts", o.Revision)
	}
	if k.saveDirty() == nil {
		t.Error("disk was not full")
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	if err := k.saveDirty(); err != nil {
		t.Error(err)
	}
	if o, _ := open(t, dir).Kept(); o.Revision != 4 {
		t.Errorf("revision %d was written", o.Revision)
	}
}

// What is kept is written again where somebody took it away.
func TestStateIsWrittenAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	k := open(t, dir)
	if _, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), k.saveDirty()); err != nil {
		t.Fatal(err)
	}
	if o, err := open(t, dir).Kept(); o.Revision != 3 || err != nil {
		t.Error(o.Revision, err)
	}
}

func TestTrustedTimeNeverGoesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		c := &fixed{clock.Reading{Wall: start}}
		cfg := config(dir, c)
		k, err := Open(cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { die(k) }()
		last := start
		rt.Repeat(map[string]func(*rapid.T){
			"time passes": func(rt *rapid.T) {
				d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "d"))
				c.now.Wall, c.now.Boot = c.now.Wall.Add(d), c.now.Boot+d
				if got := k.Trusted(c.now); got.Before(last.Add(d)) {
					rt.Fatalf("%v passed, and it is %v after %v", d, got, last)
				}
			},
			"wall clock is set": func(rt *rapid.T) {
				c.now.Wall = c.now.Wall.Add(time.Duration(rapid.Int64Range(-int64(48*time.Hour), int64(time.Hour)).Draw(rt, "by")))
			},
			"agent restarts": func(rt *rapid.T) {
				if err := k.saveMark(); err != nil {
					rt.Fatal(err)
				}
				die(k)
				if k, err = Open(cfg); err != nil {
					rt.Fatal(err)
				}
			},
			"machine restarts with its clock lost": func(rt *rapid.T) {
				if err := k.saveMark(); err != nil {
					rt.Fatal(err)
				}
				c.now = clock.Reading{Wall: time.Unix(0, 0)}
				cfg.Boot += "'"
				die(k)
				if k, err = Open(cfg); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				got := k.Trusted(c.now)
				if got.Before(last) || got.Before(c.now.Wall) {
					rt.Fatalf("it is %v after %v, by the wall %v", got, last, c.now.Wall)
				}
				last = got
			},
		})
	})
}

// A boot that began after the mark was made has gone by since, whatever the
// wall clock says: found by test/sim, seed 37.
func TestTheTimeSinceBootCountsBeforeTheFirstLook(t *testing.T) {
	start := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	m := mark{wall: start, boot: time.Hour, id: "before"}
	for _, c := range []struct {
		name string
		mark mark
		boot time.Duration
		want time.Duration
	}{
		{"this boot", m, time.Hour + time.Second, time.Second},
		{"the next boot", mark{wall: start, boot: time.Hour, id: "last"}, 10 * time.Minute, 10 * time.Minute},
		{"the next boot of a container", mark{wall: start, boot: time.Hour, id: "last"}, 70 * time.Minute, 10 * time.Minute},
		{"no boot is known", mark{wall: start}, 10 * time.Minute, 0},
	} {
		if got := c.mark.at(c.boot, "before").Sub(start); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

// A reading that was taken earlier and comes later does not make time run.
func TestTrustedTimeDoesNotRun(t *testing.T) {
	k := open(t, t.TempDir())
	early, late := clock.Reading{Wall: start, Boot: time.Hour}, clock.Reading{Wall: start.Add(time.Second), Boot: time.Hour + time.Second}
	for range 100 {
		k.Trusted(late)
		k.Trusted(early)
	}
	if got := k.Trusted(late); !got.Equal(late.Wall) {
		t.Errorf("%v", got.Sub(late.Wall))
	}
}

func TestDamagedMarkIsRebuilt(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	if _, err := k.Accept(ring(1, root, keyA), set(3, "db1", keyA), start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, markFile), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	die(k)
	k = open(t, dir)
	if got := k.Trusted(clock.Reading{Wall: time.Unix(0, 0)}); !got.Equal(start.Add(time.Minute)) {
		t.Errorf("it is %v", got)
	}
}

func TestFolder(t *testing.T) {
	f := Folder{filepath.Join(t.TempDir(), "sessions")}
	for _, name := range []string{"", "..", "a/b", ".x"} {
		if f.Save(name, 1) == nil || f.Drop(name) == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if names, err := f.Names(); len(names) != 0 || err != nil {
		t.Error(names, err)
	}
	for _, v := range []int{1, 2} {
		if err := f.Save("one", v); err != nil {
			t.Fatal(err)
		}
	}
	var v int
	if ok, err := f.Load("one", &v); !ok || err != nil || v != 2 {
		t.Error(ok, err, v)
	}
	if names, _ := f.Names(); len(names) != 1 || names[0] != "one" {
		t.Error(names)
	}
	for range 2 {
		if err := f.Drop("one"); err != nil {
			t.Error(err)
		}
	}
	if ok, err := f.Load("one", &v); ok || err != nil {
		t.Error(ok, err)
	}
}
