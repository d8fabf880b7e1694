package vm

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

var howManyCuts = flag.Int("cuts", 2, "how often the power is cut while dpkg is at work, with each release of Debian")

// packages takes bare machines through the life of a package.
func packages(t *testing.T) {
	t.Helper()
	for _, suite := range []string{lab.Bookworm, lab.Trixie} {
		t.Run("packages, "+suite, func(t *testing.T) {
			s := bare(t, suite)
			for _, p := range []struct {
				name string
				run  func(*testing.T, *packaged)
			}{
				{"what there was before", noted},
				{"a host is installed, and joins", installed},
				{"a grant and its sessions live through an upgrade and back, and end", changed},
				{"a power cut in the middle leaves a host that can be logged in to", cuts},
				{"a purge leaves the guest as it was", purged},
			} {
				if !t.Run(p.name, func(t *testing.T) { p.run(t, s) }) {
					return // what comes next stands on it
				}
			}
		})
	}
	t.Run("packages, Vagrantfile", provisioned)
}

// tools are what guests and packages are made with.
func tools(t *testing.T) {
	t.Helper()
	need.Root(t)
	need.Program(t, "qemu-system-x86_64", "gcc", "objdump", "dpkg-deb", "mkfs.ext4", "mmdebstrap", "ip", "ssh", "unshare")
}

// bare starts a guest that has nothing of ours but the files of two versions'
// packages.
func bare(t *testing.T, suite string) *packaged {
	t.Helper()
	tools(t)
	out, home := t.TempDir(), t.TempDir()
	do(t, "../../packaging/build.sh", out)
	was := t.TempDir()
	do(t, "../../packaging/previous.sh", was)
	for _, p := range []string{"curfew", "curfew-server"} {
		do(t, "dpkg-deb", "-x", filepath.Join(out, p+"_0.9.2_amd64.deb"), home)
	}
	if err := os.Symlink("usr/bin", filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"root/new.deb": filepath.Join(out, "curfew-agent_0.9.2_amd64.deb"), "root/old.deb": filepath.Join(was, "curfew-agent_0.9.1_amd64.deb")}
	f, err := lab.NewFleet(t.Context(), t.Output(), home, policy)
	if err != nil {
		t.Fatal(err)
	}
	s := &packaged{scene: &scene{fleet: f}, key: filepath.Join(home, "key")}
	t.Cleanup(func() {
		if s.vm != nil {
			err = s.vm.PowerOff()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	})
	if s.vm, err = New(t.Context(), f.Lab, "db1", Kind{Suite: suite, Kernel: versions[len(versions)-1], LSM: true, Files: files}); err != nil {
		t.Fatal(err)
	}
	if err := s.vm.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.ways(t)
	return s
}

func noted(t *testing.T, s *packaged) {
	t.Helper()
	t.Log(s.sh(t, "systemctl show -P Id -P ActiveState ssh.socket ssh.service"))
	var err error
	if s.before, err = lab.Look(t.Context(), s.vm.Sh); err != nil {
		t.Fatal(err)
	}
}

// installed: nothing of ours runs, and root gets in as before.
func installed(t *testing.T, s *packaged) {
	t.Helper()
	s.privileged, s.empty = s.sh(t, lab.Privileged), s.sh(t, empties)
	s.sh(t, "dpkg -i /root/new.deb 2>&1 && ! systemctl is-active curfew-agent")
	if err := s.open(t); err != nil {
		t.Fatal(err)
	}
	s.join(t, "curfew-agent install && ")
	s.until(t, "the uplink", func() error {
		_, err := s.vm.Sh(t.Context(), "curfew-agent status | grep 'connected to'")
		return err
	})
}

// changed is the main job with a change of version, there and back, in its
// middle.
func changed(t *testing.T, s *packaged) {
	t.Helper()
	p := s.person(t, "dan")
	id, _ := s.grant(t, p, time.Hour)
	if out, err := s.ssh(t, p, "sudo -n id && sudo -n env setsid -f sleep 5000 >/dev/null 2>&1"); err != nil || !strings.Contains(out, "uid=0(root)") {
		t.Fatalf("refused: %v %s", err, out)
	}
	session := s.sh(t, "pgrep -f '^sleep 5000'")
	for _, v := range []struct{ deb, says string }{{"old", "0.9.1"}, {"new", "0.9.2"}} {
		said := s.sh(t, "dpkg -i /root/"+v.deb+".deb >/dev/null 2>&1 && curfew-agent version && systemctl is-active curfew-agent")
		if !strings.Contains(said, v.says) {
			t.Errorf("%s is there: %s", v.deb, said)
		}
		if now := s.sh(t, "pgrep -f '^sleep 5000'"); now != session {
			t.Errorf("the session was %q and is %q", session, now)
		}
		if out, err := s.ssh(t, p, "sudo -n id"); err != nil || !strings.Contains(out, "uid=0(root)") {
			t.Errorf("with %s: refused: %v %s", v.says, err, out)
		}
	}
	s.end(t, id, "dan")
	s.sh(t, "! pgrep -f '^sleep 5000'")
	out, err := s.ssh(t, p, "true")
	refused(t, out, err)
}

// cuts takes the power away while dpkg installs the agent and the agent is
// wired, or while dpkg puts a version in the place of another.
func cuts(t *testing.T, s *packaged) {
	t.Helper()
	tasks := []struct{ name, first, command string }{
		{"an upgrade", "dpkg -i /root/old.deb", "dpkg -i /root/new.deb"},
		{"an installation", "dpkg --remove curfew-agent", "dpkg -i /root/new.deb" + wire},
	}
	moments := rand.New(rand.NewPCG(*cutSeed, 0))
	took := make([]time.Duration, len(tasks))
	middle := 0
	for i := range *howManyCuts {
		k := i % len(tasks)
		s.sh(t, "("+tasks[k].first+") 2>&1")
		if took[k] == 0 { // undisturbed
			begun := time.Now()
			s.sh(t, "("+tasks[k].command+") 2>&1")
			took[k] = time.Since(begun)
			s.sh(t, "("+tasks[k].first+") 2>&1")
		}
		after := time.Duration(moments.Int64N(int64(took[k])))
		if s.cut(t, fmt.Sprintf("cut %d (seed %d) of %s, %v after its beginning, of about %v", i, *cutSeed, tasks[k].name, after, took[k]), tasks[k].command, after) {
			middle++
		}
	}
	t.Logf("in %d of %d cuts dpkg was at work", middle, *howManyCuts)
}

func purged(t *testing.T, s *packaged) {
	t.Helper()
	s.sh(t, "dpkg --purge curfew-agent 2>&1")
	after, err := lab.Look(t.Context(), s.vm.Sh)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.before.Changes(after) {
		t.Error(c)
	}
	if err := s.open(t); err != nil {
		t.Error(err)
	}
}
