package packaging

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// `make test-cuts` asks for many. The seed of a run is in what it says when it
// fails: with it, the moments are the same again.
var (
	howManyCuts = flag.Int("cuts", 4, "how often the power is cut while dpkg is at work")
	cutSeed     = flag.Uint64("cut-seed", uint64(time.Now().UnixNano()), "what the moments of power cuts are drawn with")
)

// password is root's at the console of db1.
const password = "correct horse"

// ways gives root a password for the console of a host, and a key for its
// sshd.
func (s *life) ways(t *testing.T, h *lab.Host) {
	t.Helper()
	if _, err := h.Feed(t.Context(), read(t, s.key+".pub"), "echo 'root:"+password+"' | chpasswd && install -d -m 0700 /root/.ssh && cat > /root/.ssh/authorized_keys"); err != nil {
		t.Fatal(err)
	}
}

// sshIn is root's way in over the network.
func (s *life) sshIn(ctx context.Context, h *lab.Host) error {
	out, err := s.In(ctx, lab.Place, "ssh", "-F", "/dev/null", "-i", s.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", "root@"+h.Address, "id -u").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "0\n") {
		return fmt.Errorf("ssh: %w: %s", err, out)
	}
	return nil
}

// console is root's way in at a terminal of the host, by her password.
func console(ctx context.Context, h *lab.Host) error {
	const tmux = "tmux -S /run/console "
	if out, err := h.Sh(ctx, "rm -f /run/entered; "+tmux+"-f /dev/null new-session -d 'login root'"); err != nil {
		return fmt.Errorf("console: %w: %s", err, out)
	}
	err := lab.Until(ctx, "the console's question", func() error {
		_, err := h.Sh(ctx, tmux+"capture-pane -p | grep -q Password")
		return err
	})
	if err != nil {
		return err
	}
	if _, err := h.Sh(ctx, tmux+"send-keys -l '"+password+"' && "+tmux+"send-keys Enter"); err != nil {
		return err
	}
	err = lab.Until(ctx, "a shell at the console", func() error {
		out, err := h.Sh(ctx, tmux+"send-keys -l 'id -u > /run/entered' && "+tmux+"send-keys Enter; test \"$(cat /run/entered)\" = 0 || "+tmux+"capture-pane -p")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
	_, end := h.Sh(ctx, tmux+"kill-server; rm -f /run/console /run/entered")
	return errors.Join(err, end)
}

// A task is what dpkg is at when the power goes.
type task struct {
	command string
	took    time.Duration // undisturbed
}

// cuts takes the power away at random moments of what dpkg does.
func (s *life) cuts(t *testing.T) {
	t.Helper()
	const install = "curfew-agent install && systemctl enable --now curfew-agent curfew-sweep.service curfew-sweep.timer"
	tasks := []*task{
		{command: "dpkg -i /srv/curfew-agent_0.9.2_amd64.deb"},
		{command: "dpkg --remove curfew-agent"},
		{command: "dpkg -i /srv/curfew-agent_0.9.2_amd64.deb && " + install},
		{command: "dpkg -i /srv/curfew-agent_0.9.1_amd64.deb"},
	}
	undisturbed := func(k *task) {
		begun := time.Now()
		s.sh(t, s.db1, "("+k.command+") 2>&1")
		k.took = time.Since(begun)
	}
	for _, k := range tasks {
		undisturbed(k)
	}
	before := s.sh(t, s.db1, lab.Privileged)
	moments := rand.New(rand.NewPCG(*cutSeed, 0))
	middle := 0
	for i := range *howManyCuts {
		k := tasks[i%len(tasks)]
		after := time.Duration(moments.Int64N(int64(k.took)))
		what := fmt.Sprintf("cut %d (seed %d), %v after the beginning of %s", i, *cutSeed, after, k.command)
		t.Log(what)
		err := s.cut(t, k.command, after)
		if err != nil && !errors.Is(err, errEarly) {
			t.Fatalf("%s: %v", what, err)
		}
		if err == nil {
			middle++
		}
		if now := s.sh(t, s.db1, lab.Privileged); now != before {
			t.Fatalf("%s: who has privilege was\n%s\nand is\n%s", what, before, now)
		}
		s.sh(t, s.db1, "dpkg --configure -a 2>&1")
		undisturbed(k)
	}
	t.Logf("in %d of %d cuts dpkg was at work", middle, *howManyCuts)
	s.sh(t, s.db1, "dpkg -i /srv/curfew-agent_0.9.1_amd64.deb 2>&1 && "+install)
	s.connected(t)
	s.works(t)
}

var errEarly = errors.New("dpkg was done before the power went")

// cut starts a command and takes the power away. Up again, root gets in over
// the network and at the console, and whoever is none of ours is let through.
func (s *life) cut(t *testing.T, command string, after time.Duration) error {
	t.Helper()
	cmd := s.db1.Command(t.Context(), "/bin/sh", "-c", command)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or done before
		close(ended)
	}()
	var early error
	select {
	case <-ended:
		early = errEarly
	case <-time.After(after):
	}
	if err := s.db1.PowerOff(t.Context()); err != nil {
		return err
	}
	if early == nil {
		<-ended
	}
	if err := s.db1.Start(t.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := errors.Join(s.sshIn(ctx, s.db1), console(ctx, s.db1)); err != nil {
		return err
	}
	for _, service := range []string{"su", "sudo"} {
		if out, err := s.db1.Sh(ctx, "pamtester "+service+" root acct_mgmt open_session close_session"); err != nil {
			return fmt.Errorf("%s: %w: %s", service, err, out)
		}
	}
	out, err := s.db1.Sh(ctx, "su -s /bin/true nobody && sshd -t && visudo -cq && systemctl is-active ssh")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return early
}
