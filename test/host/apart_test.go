package host

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"curfew.internal/test/evade"
)

// noted are programs of the host that the agent starts. In the place of each
// stands one that notes its number, who started it and its name, and then is
// it: an account of what was started that is not the record's.
var noted = []string{"nft", "systemctl", "busctl"}

const note = `#!/bin/sh
echo $$ $PPID ${0##*/} >>/run/started
exec /usr/lib/lab/real/${0##*/} "$@"
`

// apart: what the agent starts while grants begin and end is in nobody's
// record; a change that its own process made is told as the agent's, and one
// by a program that only bears its name is not.
func apart(t *testing.T, s *scene) {
	t.Helper()
	s.sh(t, "mkdir -p /usr/lib/lab/real && cat >/usr/lib/lab/note <<'E'\n"+note+"E\nchmod 755 /usr/lib/lab/note")
	defer s.sh(t, "umount $(for p in "+strings.Join(noted, " ")+"; do readlink -f $(command -v $p); done); rm -rf /usr/lib/lab/real /run/started /run/lab")
	for _, p := range noted {
		s.sh(t, fmt.Sprintf("p=$(readlink -f $(command -v %[1]s)) && cp $p /usr/lib/lab/real/%[1]s && mount --bind /usr/lib/lab/note $p", p))
	}
	agent := strings.TrimSpace(s.sh(t, "systemctl show -P MainPID curfew-agent"))
	p := s.person(t, "art")
	scope, id := s.grant(t, s.person(t, "ari"), "narrow", "10m"), s.grant(t, p, "tidy", "10m")
	out, err := s.ssh(t, p, `sudo -n env sh -c 'touch /run/art; echo "[Timer]" >/etc/systemd/system/curfew-art.timer; systemctl daemon-reload'`)
	allowed(t, out, err)
	s.changed(t, `/etc/systemd/system/curfew-art.timer was put there by sh \(process \d+, uid 0\) in a session of art; it stands`)
	s.sh(t, "mkdir -p /run/lab && cp /bin/rm /run/lab/curfew-agent && /run/lab/curfew-agent /run/curfew/sudoers.d/"+id)
	s.changed(t, "sudo rule "+id+` was changed or removed by curfew-agent \(process \d+, uid 0\), which this agent did not start; it was put right`)
	for _, g := range []string{scope, id} {
		if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", g); err != nil {
			t.Fatal(err)
		}
		s.clean(t, g)
	}
	if looks := s.receipts(t, id, "leftovers"); len(looks) != 1 || !has(looks[0].Removed, "system-unit /etc/systemd/system/curfew-art.timer: ") && !has(looks[0].Removed, "timer /etc/systemd/system/curfew-art.timer: ") {
		t.Errorf("%+v", looks)
	}
	s.changed(t, `/etc/systemd/system/curfew-art.timer was changed or removed by exe \(process \d+, uid 0\), which this agent started; it stands`)
	s.sh(t, "! test -e /etc/systemd/system/curfew-art.timer")
	s.unclaimed(t, agent, append(evade.Entries(t, s.fleet, id), evade.Entries(t, s.fleet, scope)...))
}

// unclaimed: none of what the agent started is an entry of a session, and what
// she started is.
func (s *scene) unclaimed(t *testing.T, agent string, all []evade.Entry) {
	t.Helper()
	mine, hers := map[int]string{}, map[int]bool{}
	for line := range strings.Lines(s.sh(t, "cat /run/started")) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == agent {
			pid, err := strconv.Atoi(f[0])
			if err != nil {
				t.Fatal(err)
			}
			mine[pid] = f[2]
		}
	}
	seen := map[string]bool{}
	for _, e := range all {
		if e.Kind == "exec" {
			hers[e.Process.Pid] = true
			seen[e.Process.Path] = true
		}
	}
	started := map[string]int{}
	for pid, name := range mine {
		started[name]++
		if hers[pid] {
			t.Errorf("%s, which the agent started, is in the session's record", name)
		}
	}
	t.Logf("the agent started %v; she %v", started, seen)
	for _, name := range noted {
		if started[name] == 0 {
			t.Errorf("the agent started no %s, and this showed nothing of it", name)
		}
	}
	if !seen["/usr/bin/touch"] {
		t.Errorf("what she started is not in the record: %v", seen)
	}
}

// changed waits for entries of this host's about what was changed.
func (s *scene) changed(t *testing.T, want ...string) {
	t.Helper()
	s.until(t, "record of it", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "audit", "search", "--kind", "drift", "--host", "db1", "--limit", "500")
		for _, w := range want {
			if err == nil && !slices.ContainsFunc(strings.Split(out, "\n"), regexp.MustCompile(w).MatchString) {
				err = fmt.Errorf("no %q in %s", w, out)
			}
		}
		return err
	})
}
