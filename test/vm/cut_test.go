package vm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// cutSeed is in what a run says when it fails: with it, the moments are the
// same again.
var cutSeed = flag.Uint64("cut-seed", uint64(time.Now().UnixNano()), "what the moments of power cuts are drawn with")

const wire = " && curfew-agent install && systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer"

const password = "correct horse"

// A packaged is a scene on whose guest packages are installed and removed.
type packaged struct {
	*scene
	before     lab.Snapshot // of its files
	privileged string       // who was root before
	empty      string       // files that were empty before
	key        string       // of root, for sshd
}

// empties are files that have nothing in them, of those that we write or that
// decide who gets in.
const empties = `find /usr /etc/pam.d /etc/sudoers /etc/sudoers.d /etc/ssh -xdev -type f -size 0 ! -name '*.dpkg-new' ! -name '*.dpkg-tmp' \( -path '/etc/*' -o -name '*curfew*' \) | sort`

// cutOnce has the power go on a guest that was not installed from a package,
// while dpkg puts one over it.
func cutOnce(t *testing.T, on *scene) {
	t.Helper()
	out := t.TempDir()
	do(t, "../../packaging/build.sh", out)
	deb, err := os.ReadFile(filepath.Join(out, "curfew-agent_0.9.2_amd64.deb"))
	if err != nil {
		t.Fatal(err)
	}
	s := &packaged{scene: on, key: filepath.Join(out, "key")}
	if _, err := s.vm.Feed(t.Context(), string(deb), "cat >/root/new.deb"); err != nil {
		t.Fatal(err)
	}
	s.ways(t)
	s.sh(t, "rm -rf /tmp/*") // what earlier parts left there goes with the power
	s.privileged, s.empty = s.sh(t, lab.Privileged), s.sh(t, empties)
	const about = 8 * time.Second // on this machine, when it has nothing else to do
	after := time.Duration(rand.New(rand.NewPCG(*cutSeed, 0)).Int64N(int64(about)))
	s.cut(t, fmt.Sprintf("a cut (seed %d), %v after the beginning", *cutSeed, after), "dpkg -i /root/new.deb"+wire, after)
}

// cut takes the power away some time after a command began, and says whether
// it was at work still. What the disk had not got by then is lost. Root gets in
// all the same, nobody else became root, and dpkg goes on.
func (s *packaged) cut(t *testing.T, what, command string, after time.Duration) (middle bool) {
	t.Helper()
	s.sh(t, "sync")
	ended := make(chan error, 1)
	go func() {
		_, err := s.vm.Sh(context.WithoutCancel(t.Context()), "("+command+") 2>&1")
		ended <- err
	}()
	<-time.After(after)
	if err := s.vm.PowerOff(); err != nil {
		t.Fatal(err)
	}
	middle = <-ended != nil
	if err := s.vm.Start(t.Context()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s: dpkg is at %s", what, s.sh(t, "dpkg-query -W -f '${db:Status-Abbrev}${Version}' curfew-agent 2>&1 || true"))
	if err := s.open(t); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if now := s.sh(t, lab.Privileged); now != s.privileged {
		t.Fatalf("%s: who has privilege was\n%s\nand is\n%s", what, s.privileged, now)
	}
	// Each file is the one of before or the one that came, and none is half.
	if now := s.sh(t, empties); now != s.empty {
		t.Fatalf("%s: empty were\n%s\nand are\n%s", what, s.empty, now)
	}
	s.sh(t, "(dpkg --configure -a && dpkg -i /root/new.deb"+wire+") 2>&1")
	s.sh(t, "! dpkg -V curfew-agent | grep -v ' /usr/share/'") // without what Debian's images leave out
	s.until(t, what+": the uplink", func() error {
		_, err := s.vm.Sh(t.Context(), "curfew-agent status | grep 'connected to'")
		return err
	})
	return middle
}

// open shows that root gets in over the network and at the console, and that
// who is none of ours is let through.
func (s *packaged) open(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := s.fleet.In(ctx, lab.Place, "ssh", "-F", "/dev/null", "-i", s.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", "root@"+s.vm.address, "id -u").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "0\n") {
		return fmt.Errorf("ssh: %w: %s", err, out)
	}
	if err := s.vm.Console(ctx, password, "echo uid $(id -u) at $(tty)", "uid 0 at /dev/ttyS1"); err != nil {
		return err
	}
	said, err := s.vm.Sh(ctx, `for service in su sudo; do pamtester "$service" root acct_mgmt open_session close_session || exit; done
su -s /bin/true nobody && sshd -t && visudo -cq`)
	if err != nil {
		return errors.Join(err, errors.New(said))
	}
	return nil
}

// ways gives root a password for the console, and a key for sshd.
func (s *packaged) ways(t *testing.T) {
	t.Helper()
	do(t, "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", s.key)
	public, err := os.ReadFile(s.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.vm.Feed(t.Context(), string(public), "echo 'root:"+password+"' | chpasswd && install -d -m 0700 /root/.ssh && cat >/root/.ssh/authorized_keys && sync"); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "VERSION=0.9.2", "SOURCE_DATE_EPOCH=1767225600", "ARCHES=amd64")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
}
