// Package host tests the whole on real hosts: real systemd, sshd, sudo, PAM
// and BPF, and the faults that befall them.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

const policy = `labels:
  tier: [db]
roles:
  ops:
    hosts: {tier: db}
    run_as: [root]
    commands: [/usr/bin/id, /usr/bin/systemctl restart cron, "/usr/bin/env *"]
    max_duration: 1h
    reason: optional
    approval: none
  second:
    hosts: {tier: db}
    commands: [/usr/bin/whoami]
    max_duration: 1h
    reason: optional
    approval: none
  guarded:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: {by: [ben], count: 1}
  leased:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    lease: 10m
    reason: optional
    approval: none
  draining:
    hosts: {tier: db}
    commands: ["/usr/bin/env *"]
    max_duration: 1h
    drain: 15s
    reason: optional
    approval: none
  narrow:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    network: ["tcp://10.77.0.1:7443"]
    max_duration: 1h
    reason: optional
    approval: none
  tidy:
    hosts: {tier: db}
    commands: ["/usr/bin/env *"]
    max_duration: 1h
    reason: optional
    approval: none
    leftovers: {remove: [authorized-keys, setuid, capability, system-unit, timer, sudo-rule]}
  turns:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: [{by: [sue, uwe]}, {by: [tom], count: all}]
  lent:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: {by: [lev]}
    delegation: {up_to: 7d, to: [mim]}
  paged:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    approval: {by: [group:pager]}
  elevated:
    description: Look about
    hosts: {tier: db}
    commands: [/usr/bin/id, /usr/bin/id -u, /usr/bin/pwd]
    max_duration: 1h
    approval: {by: [bob]}
  typed:
    hosts: {tier: db}
    commands: [/usr/bin/id -u]
    max_duration: 1h
    record: {input: true}
    reason: optional
    approval: none
  sealed:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    human_signatures: true
    approval: {by: [isa]}
  strict:
    hosts: {tier: db}
    commands: [/usr/bin/id]
    max_duration: 1h
    record: {required: true}
    reason: optional
    approval: none
groups:
  pager: {on_call: primary}
  all: [ana, ari, art, ben, dan, eva, fay, gus, hal, ida, jon, kia, kim, lou, mia, ned, oli, pia, quin, rex, sam, tia, uma, vic, wil, xia, yan, zoe, abe, bea, cid, dag, dov, eli, fox, gil, hux, ivy, jay, kit, lea, mel, dee, eno, flo, hea, nat, noa, nic, nell, nora, eve, sky, sol, wyn, una, ula]
eligible:
  - {role: ops, groups: [all]}
  - {role: second, groups: [all]}
  - {role: guarded, people: [ana, dan]}
  - {role: turns, people: [ros]}
  - {role: lent, people: [ona]}
  - {role: paged, people: [pat]}
  - {role: elevated, people: [ora, pip, quy]}
  - {role: second, people: [ora, pip, quy]}
  - {role: leased, groups: [all]}
  - {role: narrow, groups: [all]}
  - {role: draining, groups: [all]}
  - {role: tidy, groups: [all]}
  - {role: typed, people: [nat]}
  - {role: strict, people: [noa]}
  - {role: sealed, people: [hum]}
`

// scene is a fleet with one host, made once for all tests.
type scene struct {
	fleet *lab.Fleet
	db1   *lab.Host
}

// on brings the scene up. Every test of this package runs on it in turn, each
// with people of its own: a code of a second factor is good once.
func on(t *testing.T) *scene {
	t.Helper()
	need.Root(t)
	need.Program(t, "systemd-nspawn", "mmdebstrap", "ip", "ssh")
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"curfew", "curfew-server", "curfew-agent", "curfew-record", "curfew-shell", "pam_curfew.so"} {
		if _, err := os.Stat(filepath.Join(repo, "bin", p)); err != nil {
			t.Fatalf("%v: run `make build` first", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f, err := lab.NewFleet(ctx, t.Output(), repo, policy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &scene{fleet: f}
	if s.db1, err = f.Add(ctx, "db1", "tier=db"); err != nil {
		t.Fatal(err)
	}
	return s
}

var grantID = regexp.MustCompile(`g-[a-z2-7]{16}`)

// person enrols somebody.
func (s *scene) person(t *testing.T, name string) *lab.Person {
	t.Helper()
	p, err := s.fleet.Invite(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// grant gives a person a role that needs no approval, and waits until it is
// on the host.
func (s *scene) grant(t *testing.T, p *lab.Person, role, length string) string {
	t.Helper()
	id := s.ask(t, p, role, length)
	s.until(t, "account "+p.Name, func() error {
		_, err := s.db1.Sh(t.Context(), "test -e /run/curfew/managed/"+p.Name+" && ls /run/curfew/sudoers.d/"+id)
		return err
	})
	return id
}

func (s *scene) ask(t *testing.T, p *lab.Person, role, length string) string {
	t.Helper()
	out, err := p.Prove(t.Context(), "request", role, "--on", "db1", "--for", length, "--no-wait")
	if err != nil {
		t.Fatal(err)
	}
	id := grantID.FindString(out)
	if id == "" {
		t.Fatalf("no grant in %q", out)
	}
	return id
}

func (s *scene) until(t *testing.T, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := lab.Until(ctx, what, look); err != nil {
		log, _ := s.db1.Sh(t.Context(), "journalctl --no-pager -n 40 -u curfew-agent -u curfew-sweep; ls -laR /run/curfew /run/userdb")
		t.Fatalf("%v\n%s\n%s", err, log, s.fleet.ServerLog())
	}
}

// ssh runs a command on db1 as the person, in a login of its own.
func (s *scene) ssh(t *testing.T, p *lab.Person, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, errs, err := p.Run(ctx, "", "ssh", "db1", "--", command)
	return out + errs, err
}

func (s *scene) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := s.db1.Sh(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nothing waits until the host has nothing of the person's.
func (s *scene) nothing(t *testing.T, name string) {
	t.Helper()
	s.until(t, "removal of "+name, func() error {
		out, err := s.db1.Sh(t.Context(), fmt.Sprintf("getent passwd %s; grep -l '^%s ' /run/curfew/sudoers.d/*; ls /run/curfew/*/%s /run/curfew/ssh/*/%s /run/userdb/%s.*; ps -eo user:32= | grep -x %s; true",
			name, name, name, name, name, name))
		out = regexp.MustCompile(`(?m)^(ls|grep): .*\n`).ReplaceAllString(out, "")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// clean waits for a receipt that says that nothing is left.
func (s *scene) clean(t *testing.T, id string) {
	t.Helper()
	s.until(t, "receipt of "+id, func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
		if err == nil && !strings.Contains(out, "nothing is left; signed by db1") {
			err = errors.New(out)
		}
		return err
	})
}

// over revokes a grant and waits until nothing is left of it.
func (s *scene) over(t *testing.T, name, id string) {
	t.Helper()
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, name)
	s.clean(t, id)
}

func allowed(t *testing.T, out string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("refused: %v %s", err, out)
	}
}

func refused(t *testing.T, out string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("let through: %s", out)
		return
	}
	for _, w := range words {
		if !strings.Contains(out+err.Error(), w) {
			t.Errorf("refused without %q: %v %s", w, err, out)
		}
	}
}
