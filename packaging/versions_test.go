package packaging

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"curfew.internal/test/lab"
)

// older builds the packages of the previous version.
func older(t *testing.T) (out string) {
	t.Helper()
	out = t.TempDir()
	t.Log(output(t.Context(), t, "./previous.sh", out))
	return out
}

// change puts every version beside every other: of the two agents, and of the
// server.
func (s *life) change(t *testing.T) {
	t.Helper()
	before := s.sessions(t)
	for i, step := range []struct {
		host   *lab.Host
		of, to string
	}{
		{s.db1, "curfew-agent", "0.9.2"},
		{s.plane, "curfew-server", "0.9.2"},
		{s.db2, "curfew-agent", "0.9.2"},
		{s.db1, "curfew-agent", "0.9.1"},
		{}, // a grant ends while db1 goes up again, and db2 down
		{s.plane, "curfew-server", "0.9.1"},
		{s.db1, "curfew-agent", "0.9.1"},
	} {
		what := fmt.Sprintf("step %d, %s %s", i, step.of, step.to)
		if step.host == nil {
			s.ends(t)
		} else {
			s.replace(t, step.host, step.of, step.to)
		}
		s.ready(t)
		s.connected(t)
		for h, now := range s.sessions(t) {
			if now != before[h] {
				t.Fatalf("%s: sessions on %s were %q and are %q", what, h.Name, before[h], now)
			}
			s.sh(t, h, "curfew-agent status && su -s /bin/true nobody")
		}
		s.works(t)
	}
	s.whole(t)
}

// replace installs another version over the one that is there.
func (s *life) replace(t *testing.T, h *lab.Host, of, to string) {
	t.Helper()
	old := s.sh(t, h, "systemctl show -P MainPID "+of)
	s.sh(t, h, s.typed(t, of, to))
	if v := s.sh(t, h, of+" version"); !strings.HasSuffix(strings.TrimSpace(v), to) {
		t.Errorf("it is %s", v)
	}
	if s.sh(t, h, "systemctl show -P MainPID "+of) == old {
		t.Errorf("%s: the old one runs on", of)
	}
}

// typed is what docs/upgrade.md says to type for another version.
func (s *life) typed(t *testing.T, of, to string) string {
	t.Helper()
	for _, b := range blocks(t, "docs/upgrade.md") {
		if strings.Contains(b.text, of+"_NEW") {
			return "cd /srv && exec 2>&1 && set -e\n" + strings.ReplaceAll(b.text, "NEW", to)
		}
	}
	t.Fatalf("docs/upgrade.md does not say how %s is upgraded", of)
	return ""
}

// sessions are the processes of the sessions that are open, on each host.
func (s *life) sessions(t *testing.T) map[*lab.Host]string {
	t.Helper()
	all := map[*lab.Host]string{}
	for _, h := range s.hosts() {
		all[h] = s.sleepers(t, h)
	}
	return all
}

// A span is a grant whose end lies between two times: the control plane's
// clock is read on the way.
type span struct {
	id               string
	earliest, latest time.Time
}

// ends has a grant end while the agents of both hosts are replaced, one by the
// next version and one by that before. What it gave is there until its end, and
// not after it.
func (s *life) ends(t *testing.T) {
	t.Helper()
	g := s.short(t)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for time.Until(g.earliest) > time.Second {
		if out, err := s.running(t); err != nil && time.Now().Before(g.earliest) {
			t.Fatalf("%s ended %v before its end: %v %s", g.id, time.Until(g.earliest), err, out)
		}
		<-tick.C
	}
	var both errgroup.Group
	for h, to := range map[*lab.Host]string{s.db1: "0.9.2", s.db2: "0.9.1"} {
		script := s.typed(t, "curfew-agent", to)
		both.Go(func() error {
			out, err := h.Sh(t.Context(), script)
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	}
	for time.Now().Before(g.latest) {
		<-tick.C
	}
	// Whatever the agents are at: the door is closed.
	for _, h := range s.hosts() {
		if out, err := h.Sh(t.Context(), "pamtester sshd dan acct_mgmt"); err == nil {
			t.Errorf("%s lets dan in after the end of %s: %s", h.Name, g.id, out)
		}
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the end of "+g.id, func() error {
		if _, err := s.running(t); err == nil {
			return errors.New("its sessions live on")
		}
		for _, h := range s.hosts() {
			if _, err := h.Sh(t.Context(), "systemctl is-active curfew-agent && ! pgrep -f '^sleep 7100$' && ! ls /run/curfew/sudoers.d/"+g.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// running looks for the short grant's sessions, on both hosts.
func (s *life) running(t *testing.T) (string, error) {
	t.Helper()
	for _, h := range s.hosts() {
		if out, err := h.Sh(t.Context(), "pgrep -f '^sleep 7100$'"); err != nil {
			return out, err
		}
	}
	return "", nil
}

// short gives dan a grant, and opens a session under it on each host: for as
// short a time as this machine can do that in.
func (s *life) short(t *testing.T) span {
	t.Helper()
	for length := time.Minute; ; length *= 2 {
		out, err := s.People["dan"].Prove(t.Context(), "request", "db-admin", "--on", "db1,db2", "--for", length.String(), "--why", "a short look", "--no-wait")
		if err != nil {
			t.Fatal(err)
		}
		g := span{earliest: time.Now().Add(length)}
		if out, err = s.People["ben"].Prove(t.Context(), "approve", requestID.FindString(out)); err != nil {
			t.Fatal(err)
		}
		g.id, g.latest = grantID.FindString(out), time.Now().Add(length)
		ctx, cancel := context.WithDeadline(t.Context(), g.earliest.Add(-5*time.Second))
		err = s.open(ctx, t, "dan", "sudo sleep 7100")
		if err == nil {
			err = lab.Until(ctx, "dan's sessions", func() error {
				_, err := s.running(t)
				return err
			})
		}
		cancel()
		if err == nil {
			return g
		}
		if length > 10*time.Minute {
			t.Fatalf("%v\n%s", err, s.logs(t))
		}
	}
}

// open opens a session on each host, once the grant is there.
func (s *life) open(ctx context.Context, t *testing.T, name, command string) error {
	t.Helper()
	for _, h := range s.hosts() {
		err := lab.Until(ctx, "the account on "+h.Name, func() error {
			_, err := h.Sh(ctx, "getent passwd "+name+" && test -n \"$(ls /run/curfew/sudoers.d)\"")
			return err
		})
		if err != nil {
			return err
		}
		// It stays open when this part is over, until the lab is closed.
		if _, err := s.People[name].Start(context.WithoutCancel(t.Context()), filepath.Join(t.TempDir(), "out"), "ssh", h.Name, "--", command); err != nil {
			return err
		}
	}
	return nil
}

// whole shows that the record of all that has no hole that it does not tell
// of: the auditor's program of this version goes over it.
func (s *life) whole(t *testing.T) {
	t.Helper()
	found := s.person(t, "ben", "audit", "search", "--grant", s.grant)
	if !strings.Contains(found, "sleep 7001") {
		t.Errorf("the record: %s", found)
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	if _, err := s.People["cleo"].Administer(t.Context(), "audit", "export", "--all", bundle); err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(s.sh(t, s.plane, "runuser -u curfew-server -- curfew-server log-key 2>/dev/null"))
	t.Log(output(t.Context(), t, filepath.Join(s.auditor, "usr/bin/curfew"), "verify", bundle, "--key", key))
}
