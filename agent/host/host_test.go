package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"curfew.internal/agent/enforce"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/test/need"
)

// machine is a host below a folder of the test's own.
func machine(t *testing.T) *Host {
	t.Helper()
	need.Root(t)
	need.Program(t, "visudo", "getent")
	h := &Host{Root: t.TempDir(), Clock: clock.System{}}
	if err := h.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(h.path("proc/self"), 0o755),
		os.WriteFile(h.path("proc/self/mountinfo"), []byte("21 1 0:1 / / rw - ext4 /dev/vda rw\n"), 0o444)); err != nil {
		t.Fatal(err)
	}
	return h
}

func wanted() enforce.State {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	id, _ := grant.ParseCommand("/usr/bin/id")
	g := grant.Grant{
		ID: "g-abcdefghijklmnop", Person: grant.Person{Name: "cfw-ana", UID: grant.UIDMin + 7, FullName: "Ana"}, Hosts: []string{"db1"},
		NotBefore: now, NotAfter: now.Add(time.Hour), Role: grant.Role{RunAs: []string{"root"}, Commands: []grant.Command{id}},
	}
	want, _ := enforce.Want([]grant.Grant{g}, "db1", now)
	delete(want, enforce.Thing{Kind: enforce.EndTimer, Name: g.ID}) // systemd's, which a folder has none of
	return want
}

func converge(t *testing.T, h *Host, want enforce.State) {
	t.Helper()
	seen, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range enforce.Plan(want, seen) {
		if err := h.Apply(t.Context(), s); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
	}
	seen, err = h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, seen); diff != "" && len(want)+len(seen) > 0 {
		t.Fatal(diff)
	}
}

func TestGivenAndTakenAway(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	for name, mode := range map[string]os.FileMode{
		"run/curfew/sudoers.d/g-abcdefghijklmnop": 0o440, "run/userdb/cfw-ana.user": 0o644, "run/curfew/home/cfw-ana": os.ModeDir | 0o700,
	} {
		info, err := os.Stat(filepath.Join(h.Root, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	converge(t, h, enforce.State{})
	for _, dir := range []string{"run/curfew/home", "run/userdb"} {
		if left, err := os.ReadDir(h.path(dir)); err != nil || len(left) > 0 {
			t.Error(left, err)
		}
	}
}

func TestWhatSomebodySpoiledIsPutRight(t *testing.T) {
	for name, spoil := range map[string]func(root string) error{
		"a wider rule": func(r string) error {
			return os.WriteFile(r+"/run/curfew/sudoers.d/g-abcdefghijklmnop", []byte("cfw-ana ALL=(ALL) ALL\n"), 0o440)
		},
		"a rule all can write": func(r string) error { return os.Chmod(r+"/run/curfew/sudoers.d/g-abcdefghijklmnop", 0o666) },
		"a rule of nobody's": func(r string) error {
			return os.WriteFile(r+"/run/curfew/sudoers.d/mine", []byte("x ALL=(ALL) ALL\n"), 0o440)
		},
		"a folder in its place": func(r string) error {
			_ = os.Remove(r + "/run/curfew/ssh/principals/cfw-ana")
			return os.MkdirAll(r+"/run/curfew/ssh/principals/cfw-ana/x", 0o755)
		},
		"a link in its place": func(r string) error {
			_ = os.Remove(r + "/run/curfew/managed/cfw-ana")
			return os.Symlink("/etc/passwd", r+"/run/curfew/managed/cfw-ana")
		},
		"a home of somebody's": func(r string) error { return os.Chown(r+"/run/curfew/home/cfw-ana", 1, 1) },
		"an account as uid 0": func(r string) error {
			return os.WriteFile(r+"/run/userdb/cfw-ana.user", []byte(`{"userName":"cfw-ana","uid":0,"gid":70007,"curfew":true}`), 0o644)
		},
		"an account without our mark": func(r string) error {
			return os.WriteFile(r+"/run/userdb/cfw-ana.user", []byte(`{"userName":"cfw-ana","uid":70007,"gid":70007,"homeDirectory":"/srv"}`), 0o644)
		},
		"a number led elsewhere": func(r string) error {
			_ = os.Remove(r + "/run/userdb/70007.user")
			return os.Symlink("x.user", r+"/run/userdb/70007.user")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			if err := spoil(h.Root); err != nil {
				t.Fatal(err)
			}
			seen, err := h.Observe(t.Context())
			if err != nil || len(enforce.Plan(wanted(), seen)) == 0 {
				t.Fatalf("not seen: %v", err)
			}
			converge(t, h, wanted())
			converge(t, h, enforce.State{})
		})
	}
}

func TestAnAdministratorsThingsAreLeftAlone(t *testing.T) {
	h := machine(t)
	theirs := filepath.Join(h.Root, "run/userdb/cfw-ana.user")
	if err := os.WriteFile(theirs, []byte(`{"userName":"cfw-ana","uid":70007,"gid":70007}`), 0o644); err != nil {
		t.Fatal(err)
	}
	seen, err := h.Observe(t.Context())
	if err != nil || len(seen) != 0 {
		t.Fatalf("%v %v", seen, err)
	}
	thing := enforce.Thing{Kind: enforce.Account, Name: "cfw-ana"}
	if err := h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: thing, Content: wanted()[thing]}); err == nil {
		t.Error("it was replaced")
	}
	if err := h.Apply(t.Context(), enforce.Step{Op: enforce.Remove, Thing: thing}); err == nil {
		t.Error("it was removed")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestANameThatTheHostHasIsNotGiven(t *testing.T) {
	h := machine(t)
	p := grant.Person{Name: "nobody", UID: grant.UIDMin + 8}
	s := enforce.Step{Op: enforce.Put, Thing: enforce.Thing{Kind: enforce.Account, Name: p.Name}, Content: enforce.UserRecord(p)}
	if err := h.Apply(t.Context(), s); err == nil || !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
	if seen, _ := h.Observe(t.Context()); len(seen) > 0 {
		t.Error(seen)
	}
}

func TestARuleThatSudoDoesNotTakeIsNotGiven(t *testing.T) {
	h := machine(t)
	thing := enforce.Thing{Kind: enforce.SudoRule, Name: "g-abcdefghijklmnop"}
	if err := h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: thing, Content: "this is no rule\n"}); err == nil {
		t.Error("taken")
	}
	// visudo missing.
	old := searchPath
	searchPath = []string{t.TempDir()}
	err := h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: thing, Content: wanted()[thing]})
	searchPath = old
	if err == nil || !strings.Contains(err.Error(), "visudo is not on this host") {
		t.Error(err)
	}
	if seen, _ := h.Observe(t.Context()); len(seen) > 0 {
		t.Error(seen)
	}
}

// A full /run gives nothing, and hinders no removal.
func TestFullDisk(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	small := &Host{Root: t.TempDir()}
	if err := unix.Mount("tmpfs", small.Root, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small.Root, unix.MNT_DETACH) })
	if err := small.Prepare(); err != nil {
		t.Fatal(err)
	}
	converge(t, small, wanted())
	fill := filepath.Join(small.Root, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	_ = f.Close()
	other := wanted()
	rule := enforce.Thing{Kind: enforce.SudoRule, Name: "g-qrstuvwxyzabcdef"}
	if err := small.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: rule, Content: strings.ReplaceAll(other[enforce.Thing{Kind: enforce.SudoRule, Name: "g-abcdefghijklmnop"}], "abcdefghijklmnop", "qrstuvwxyzabcdef")}); err == nil {
		t.Error("a rule was written on a full disk")
	}
	converge(t, small, enforce.State{})
}

func TestWiringComesOutByteForByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.StringMatching(`([a-z@# ]{0,12}\n?){0,6}`).Draw(t, "file")
		if strings.Contains(before, "curfew") {
			return
		}
		w := Wiring{Enforce: rapid.Bool().Draw(t, "enforce")}
		once := wire(unwire([]byte(before)), w, "")
		twice := wire(unwire(once), w, "")
		if string(once) != string(twice) {
			t.Fatalf("%q and %q", once, twice)
		}
		if got := string(unwire(twice)); got != before {
			t.Fatalf("%q came out as %q", before, got)
		}
		lines := strings.Split(string(once), "\n")
		if !strings.HasPrefix(lines[1], "account "+control+" pam_curfew.so") || !strings.Contains(string(once), "\nsession "+control+" pam_curfew.so") {
			t.Fatalf("%q", once)
		}
	})
}

func TestKillUIDKnowsItsRange(t *testing.T) {
	h := machine(t)
	for _, uid := range []uint32{0, 1000, grant.UIDMin - 1, grant.UIDMax + 1} {
		if _, err := h.KillUID(t.Context(), uid); err == nil {
			t.Errorf("uid %d", uid)
		}
		if _, err := h.Clear(t.Context(), "ana", uid); err == nil {
			t.Errorf("uid %d", uid)
		}
	}
}
