package grant

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"curfew.internal/canon"
	"curfew.internal/dsse"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func key(seed string) ed25519.PrivateKey {
	s := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(s[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func example() Grant {
	restart, _ := ParseCommand("/usr/bin/systemctl restart cron")
	logs, _ := ParseCommand("/usr/bin/journalctl *")
	db, _ := ParseDestination("tcp://10.0.0.0/24:5432")
	return Grant{
		ID: "g-abcdefghijklmnop", Fleet: "example",
		Person: Person{Name: "ana", UID: UIDMin, FullName: "Ana Lima"},
		Role:   Role{Name: "db-admin", RunAs: []string{"root"}, Commands: []Command{restart, logs}, Network: []Destination{db}},
		Hosts:  []string{"db1", "db2"}, NotBefore: noon, NotAfter: noon.Add(2 * time.Hour), Lease: 5 * time.Minute,
		Request: "r-abcdefghijklmnop", Digest: make([]byte, 32), Reason: "disk full", Ticket: "INC-4121",
		Asked:     Evidence{"ana", "totp", noon.Add(-time.Minute)},
		Approvals: []Evidence{{"ben", "totp", noon}},
	}
}

var exact = []cmp.Option{cmpopts.EquateComparable(Destination{}), cmpopts.EquateEmpty()}

func TestLiveAt(t *testing.T) {
	g := example()
	for _, c := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"not a nanosecond early", g.NotBefore.Add(-1), false},
		{"from its start", g.NotBefore, true},
		{"up to its end", g.NotAfter.Add(-1), true},
		{"and not at its end", g.NotAfter, false},
		{"nor at the zero time", time.Time{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := g.LiveAt(c.at); got != c.want {
				t.Errorf("LiveAt(%v) = %v", c.at, got)
			}
		})
	}
	if (Grant{}).LiveAt(noon) {
		t.Error("the zero grant permits something")
	}
}

// A host is given a grant that names itself alone, so that a grant on many hosts
// costs no more than many on one.
func TestFor(t *testing.T) {
	signed := example()
	signed.Role.Signed, signed.Words = true, goldenWords()
	for _, c := range []struct {
		name string
		g    Grant
		host string
		want []string
	}{
		{"its host hears of no other", example(), "db2", []string{"db2"}},
		{"one that it does not name gets nothing by it", example(), "db3", []string{"db1", "db2"}},
		{"what people signed stays whole", signed, "db2", []string{"db1", "db2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := c.g.Bytes()
			got := c.g.For(c.host)
			if !slices.Equal(got.Hosts, c.want) || !bytes.Equal(c.g.Bytes(), whole) {
				t.Errorf("for %v; the grant itself is for %v", got.Hosts, c.g.Hosts)
			}
			got.Hosts = c.g.Hosts
			if diff := cmp.Diff(c.g, got, exact...); diff != "" {
				t.Error("more than its hosts is another:", diff)
			}
			if got := c.g.For(c.host); got.On(c.host) != c.g.On(c.host) {
				t.Error("narrowed or widened")
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Grant){
		"a path as id":                 func(g *Grant) { g.ID = "../x" },
		"an id that sudo skips":        func(g *Grant) { g.ID = "g-abcdefghijklmno." },
		"root":                         func(g *Grant) { g.Person.Name = "root" },
		"leftovers of no kind":         func(g *Grant) { g.Role.Remove = []string{"mount"} },
		"drain over an hour":           func(g *Grant) { g.Role.Drain = time.Hour + time.Second },
		"a demand that is not known":   func(g *Grant) { g.Role.Audit = AuditEnd + 1 },
		"drain before the end":         func(g *Grant) { g.Role.Drain = -time.Second },
		"leftovers twice":              func(g *Grant) { g.Role.Remove = []string{"setuid", "setuid"} },
		"leftovers out of order":       func(g *Grant) { g.Role.Remove = []string{"setuid", "crontab"} },
		"a person called ALL":          func(g *Grant) { g.Person.Name = "ALL" },
		"a number as a person":         func(g *Grant) { g.Person.Name = "#0" },
		"a system uid":                 func(g *Grant) { g.Person.UID = 0 },
		"no host":                      func(g *Grant) { g.Hosts = nil },
		"hosts out of order":           func(g *Grant) { g.Hosts = []string{"db2", "db1"} },
		"a host twice":                 func(g *Grant) { g.Hosts = []string{"db1", "db1"} },
		"an end before the start":      func(g *Grant) { g.NotAfter = g.NotBefore },
		"a life over thirty days":      func(g *Grant) { g.NotAfter = g.NotBefore.Add(MaxDuration + time.Second) },
		"parts of a second":            func(g *Grant) { g.NotAfter = g.NotAfter.Add(1) },
		"a negative lease":             func(g *Grant) { g.Lease = -time.Second },
		"any command and a list":       func(g *Grant) { g.Role.AnyCommand = true },
		"commands as nobody in sight":  func(g *Grant) { g.Role.RunAs = nil },
		"a wildcard in a path":         func(g *Grant) { g.Role.Commands = []Command{{Path: "/usr/bin/*"}} },
		"a comma in a run-as":          func(g *Grant) { g.Role.RunAs = []string{"root,ALL"} },
		"an approval of one's own":     func(g *Grant) { g.Approvals[0].Person = "ana" },
		"one approver twice":           func(g *Grant) { g.Approvals = append(g.Approvals, g.Approvals[0]) },
		"asked for by somebody else":   func(g *Grant) { g.Asked.Person = "ben" },
		"a short digest":               func(g *Grant) { g.Digest = g.Digest[:31] },
		"a reason that turns the text": func(g *Grant) { g.Reason = "\u202egpj" },
		"an escape in a reason":        func(g *Grant) { g.Reason = "\x1b[2J" },
	} {
		t.Run(name, func(t *testing.T) {
			g := example()
			spoil(&g)
			if err := g.Check(); !errors.Is(err, ErrInvalid) {
				t.Errorf("Check() = %v", err)
			}
			if got, err := Parse(g.Bytes()); err == nil && got.Check() != nil {
				t.Error("Parse took it")
			}
		})
	}
	if err := example().Check(); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{
		"", "root", "../x", "a.b", "a~", "-x", "a b", "a\nb", "аna", "Ana", "ALL", "#0", "%wheel", "a,b", "a=b", "a!b",
		strings.Repeat("a", 300), "ana\x00", "_x", "0x", "nobody", "sudo", "\xff", "curfew-scim", "curfew-server",
	} {
		if CheckPerson(name) == nil {
			t.Errorf("%q passed", name)
		}
	}
	for _, name := range []string{"ana", "a", "ana-maria", "x_1", strings.Repeat("a", 31)} {
		if err := CheckPerson(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestParseCommand(t *testing.T) {
	for _, bad := range []string{
		"", "ALL", "ls", "!/bin/ls", "/bin/../sh", "/bin//ls", "/bin/ls/", "/bin/l*", "/bin/ls a*", `/bin/ls \a`, "/bin/ls 'a b'",
		"/bin/ls\n/bin/sh", "/bin/ls a\tb", "/bin/ls [a]", "/bin/ls ?", "/bin/ls * *", "/usr/bin/sudoedit /etc/passwd", "/usr/bin/sudo ls", "/bin/l,s", "/bin/ls ^a$",
		"/bin/ls !x", "#/bin/ls", "/bin/ls é",
	} {
		if c, err := ParseCommand(bad); err == nil {
			t.Errorf("%q became %+v", bad, c)
		}
	}
	c, err := ParseCommand("/usr/bin/chown app:app  --from=a,b /srv/x#1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Command{Path: "/usr/bin/chown", Args: []string{"app:app", "--from=a,b", "/srv/x#1"}}, c); diff != "" {
		t.Error(diff)
	}
}

func TestAllows(t *testing.T) {
	r := example().Role
	for _, c := range []struct {
		name, as string
		argv     []string
		want     bool
	}{
		{"the exact command", "root", []string{"/usr/bin/systemctl", "restart", "cron"}, true},
		{"other arguments", "root", []string{"/usr/bin/systemctl", "restart", "ssh"}, false},
		{"more arguments", "root", []string{"/usr/bin/systemctl", "restart", "cron", "ssh"}, false},
		{"fewer arguments", "root", []string{"/usr/bin/systemctl"}, false},
		{"any arguments", "root", []string{"/usr/bin/journalctl", "-u", "x y"}, true},
		{"as somebody else", "postgres", []string{"/usr/bin/systemctl", "restart", "cron"}, false},
		{"nothing", "root", nil, false},
	} {
		if got := r.Allows(c.as, c.argv); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Golden vectors: the bytes of a grant never change under a version.
func TestGolden(t *testing.T) {
	g := example()
	set := Set{Fleet: "example", Host: "db1", Revision: 7, IssuedAt: noon, Grants: [][]byte{dsse.Sign(Type, g.Bytes(), key("grant")).Bytes()}}
	ring := Keyring{Fleet: "example", Version: 1, Keys: []Key{{public(key("grant")), noon.Add(-time.Hour), noon.Add(time.Hour)}}}
	tidy := example()
	tidy.Role.Remove = []string{"authorized-keys", "setuid"}
	signed := example()
	signed.Role.Signed, signed.Words = true, goldenWords()
	for name, b := range map[string][]byte{
		"signed.bin":  signed.Bytes(),
		"roster.bin":  dsse.Sign(RosterType, goldenRoster().Bytes(), key("o1"), key("root")).Bytes(),
		"grant.bin":   g.Bytes(),
		"tidy.bin":    tidy.Bytes(),
		"set.bin":     dsse.Sign(SetType, set.Bytes(), key("grant")).Bytes(),
		"keyring.bin": dsse.Sign(KeyringType, ring.Bytes(), key("root")).Bytes(),
	} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, want := range []Grant{g, tidy, signed} {
		got, err := Parse(want.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, exact...); diff != "" {
			t.Error(diff)
		}
	}
}

func genGrant(t *rapid.T) Grant {
	g := example()
	g.Person.Name = rapid.StringMatching(`[a-z][a-z0-9-]{3,20}x`).Draw(t, "person")
	g.Asked.Person = g.Person.Name
	g.Approvals = nil
	g.Person.UID = rapid.Uint32Range(UIDMin, UIDMax).Draw(t, "uid")
	g.Reason = rapid.StringMatching(`[a-zA-Z<>&"' äöü]{0,80}`).Draw(t, "reason")
	g.Lease = time.Duration(rapid.IntRange(0, 3600).Draw(t, "lease")) * time.Second
	g.Role.NoExec = rapid.Bool().Draw(t, "noexec")
	for _, kind := range Leftovers() {
		if rapid.Bool().Draw(t, kind) {
			g.Role.Remove = append(g.Role.Remove, kind)
			g.Role.Drain = time.Duration(len(g.Role.Remove)) * time.Minute
			g.Role.Unguarded = len(g.Role.Remove) > 0
			g.Role.Audit = Audit(len(g.Role.Remove) % 3)
		}
	}
	if g.Role.Unseen = rapid.Bool().Draw(t, "unseen"); !g.Role.Unseen {
		g.Role.Typed, g.Role.Strict = rapid.Bool().Draw(t, "typed"), rapid.Bool().Draw(t, "strict")
	}
	g.NotBefore = time.Unix(rapid.Int64Range(1, 1<<34).Draw(t, "from"), 0).UTC()
	g.NotAfter = g.NotBefore.Add(time.Duration(rapid.IntRange(1, 3600*24*30).Draw(t, "for")) * time.Second)
	if g.Role.Commands = nil; rapid.Bool().Draw(t, "any") {
		g.Role.AnyCommand = true
	}
	return g
}

func TestEveryGrantReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := genGrant(t)
		got, err := Parse(g.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(g, got, exact...); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestNoChangedByteIsTaken(t *testing.T) {
	g := example()
	r := Reader{Fleet: "example", Host: "db1", Ring: Keyring{"example", 1, []Key{{public(key("grant")), noon.Add(-time.Hour), noon.Add(time.Hour)}}}}
	set := Set{Fleet: "example", Host: "db1", Revision: 7, IssuedAt: noon, Grants: [][]byte{dsse.Sign(Type, g.Bytes(), key("grant")).Bytes()}}
	whole := dsse.Sign(SetType, set.Bytes(), key("grant")).Bytes()
	if o, err := r.Open(whole, noon); err != nil || len(o.Grants) != 1 {
		t.Fatalf("the good one: %v %v", o, err)
	}
	for i := range whole {
		for _, bit := range []byte{1, 0x80} {
			bad := append([]byte(nil), whole...)
			bad[i] ^= bit
			if o, err := r.Open(bad, noon); err == nil {
				t.Fatalf("byte %d changed by %#x was taken: %+v", i, bit, o)
			}
		}
	}
	for i := range whole {
		if _, err := r.Open(whole[:i], noon); err == nil {
			t.Fatalf("cut at %d was taken", i)
		}
	}
	if _, err := r.Open(append(whole, 0), noon); err == nil {
		t.Fatal("a trailing byte was taken")
	}
}

func TestOpenRefuses(t *testing.T) {
	ring := Keyring{"example", 1, []Key{
		{public(key("grant")), noon.Add(-time.Hour), noon.Add(time.Hour)},
		{public(key("old")), noon.Add(-2 * time.Hour), noon.Add(-time.Hour)},
	}}
	r := Reader{Fleet: "example", Host: "db1", Ring: ring}
	seal := func(change func(*Set), k ed25519.PrivateKey) []byte {
		g := example()
		s := Set{Fleet: "example", Host: "db1", Revision: 7, IssuedAt: noon, Grants: [][]byte{dsse.Sign(Type, g.Bytes(), key("grant")).Bytes()}}
		change(&s)
		return dsse.Sign(SetType, s.Bytes(), k).Bytes()
	}
	same := func(*Set) {}
	for name, b := range map[string][]byte{
		"another key":            seal(same, key("other")),
		"a key that is over":     seal(same, key("old")),
		"another host":           seal(func(s *Set) { s.Host = "web1" }, key("grant")),
		"another fleet":          seal(func(s *Set) { s.Fleet = "other" }, key("grant")),
		"a grant as a set":       dsse.Sign(Type, example().Bytes(), key("grant")).Bytes(),
		"a set typed as a grant": dsse.Sign(Type, Set{Fleet: "example", Host: "db1"}.Bytes(), key("grant")).Bytes(),
		"no signature":           dsse.Envelope{Type: SetType, Payload: []byte{1}}.Bytes(),
		"ten megabytes":          make([]byte, 10<<20),
		"nothing":                nil,
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := r.Open(b, noon); err == nil {
				t.Errorf("taken: %+v", o)
			}
		})
	}
	t.Run("one bad grant falls out, the others stand", func(t *testing.T) {
		o, err := r.Open(seal(func(s *Set) {
			g := example()
			g.ID, g.Hosts = "g-qrstuvwxyzabcdef", []string{"web1"}
			s.Grants = append(s.Grants, dsse.Sign(Type, g.Bytes(), key("grant")).Bytes(), []byte("rubbish"), s.Grants[0])
		}, key("grant")), noon)
		if err != nil || len(o.Grants) != 1 || len(o.Refused) != 3 {
			t.Errorf("%+v, %v", o, err)
		}
	})
	t.Run("a forged grant inside a good set", func(t *testing.T) {
		o, err := r.Open(seal(func(s *Set) { s.Grants = [][]byte{dsse.Sign(Type, example().Bytes(), key("other")).Bytes()} }, key("grant")), noon)
		if err != nil || len(o.Grants) != 0 {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

func TestKeyring(t *testing.T) {
	ring := Keyring{"example", 3, []Key{{public(key("grant")), noon.Add(-time.Hour), noon.Add(time.Hour)}}}
	roots := []ed25519.PublicKey{public(key("root"))}
	good := dsse.Sign(KeyringType, ring.Bytes(), key("root")).Bytes()
	if got, err := OpenKeyring(good, "example", roots); err != nil || got.Version != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := OpenKeyring(good, "other", roots); !errors.Is(err, ErrOtherFleet) {
		t.Error(err)
	}
	if _, err := OpenKeyring(dsse.Sign(KeyringType, ring.Bytes(), key("grant")).Bytes(), "example", roots); !errors.Is(err, dsse.ErrSignatures) {
		t.Error(err)
	}
	if _, err := OpenKeyring(good, "example", nil); err == nil {
		t.Error("a keyring without a root was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example().Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Parse(b)
		if err != nil {
			return
		}
		if err := canon.Same(b, g.Bytes()); err != nil {
			t.Errorf("%x reads as %+v, which is written otherwise", b, g)
		}
	})
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"/bin/ls", "/bin/ls *", "/bin/ls a=b,c:d", "ALL", "/bin/ls \\*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCommand(s)
		if err != nil {
			return
		}
		again, err := ParseCommand(c.String())
		if err != nil || !cmp.Equal(c, again) {
			t.Errorf("%q -> %+v -> %+v, %v", s, c, again, err)
		}
	})
}
