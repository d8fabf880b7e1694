// Package evade plays what is run to be missed, and holds docs/evasion.md to
// what the record has of it.
//
// It plays it on any host that has a lab's programs, in a session that is
// under a grant. It judges entries alone: what a host did with them is not its
// matter. It is for tests alone.
package evade

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// A Host runs scripts as root, in nobody's session.
type Host interface {
	Sh(ctx context.Context, script string) (string, error)
	Feed(ctx context.Context, input, script string) (string, error)
}

// A Session is a person's who may run env as root on the host db1.
type Session struct {
	Host     Host
	Fleet    *lab.Fleet
	Person   *lab.Person
	Grant    string
	Refused  string        // the way that the host's kernel refuses to whom it guards Curfew from, if it does
	Patience time.Duration // for all others to come about
	Over     func()        // ends the grant, and waits until nothing is left of it
}

// Play plays every way in one session, and judges what is then in the record.
func Play(t testing.TB, s Session) {
	t.Helper()
	Equip(t, s.Host)
	defer s.sh(t, dismissed)
	s.sh(t, accomplices)
	script := "try() { eval \"$2\" >/run/evade/said 2>&1 </dev/null; echo \"$1: $?: $(head -c 300 /run/evade/said | tr '\\n' ' ')\"; rm -f /run/evade/said; }\nexec >/run/evade/tried\n"
	for i, e := range evasions {
		script += fmt.Sprintf("try %s %s\n", quoted(e.name), quoted(strings.NewReplacer("FILE", made(i), "NAME", s.Person.Name).Replace(e.try)))
	}
	put(t, s.Host, "evade", script+"mv /run/evade/tried /run/evade/tried.all\n")
	if _, err := s.Person.Start(t.Context(), t.TempDir()+"/out", "ssh", "db1", "--", "sudo -n env bash /usr/lib/lab/evade >/dev/null 2>&1 </dev/null"); err != nil {
		t.Fatal(err)
	}
	ran := s.come(t)
	s.Over()
	all := Entries(t, s.Fleet, s.Grant)
	s.judge(t, all)
	raced(t, all, ran)
	s.safeToRead(t)
}

// come waits until every way came about, and returns what they left.
func (s Session) come(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	var ran string
	err := lab.Until(ctx, "what the ways make", func() error {
		out, err := s.Host.Sh(t.Context(), "cat /run/evade/tried.all")
		if err != nil {
			return err
		}
		// Cron takes up to a minute.
		ran, err = s.Host.Sh(t.Context(), fmt.Sprintf("timeout 20 sh -c 'until [ $(ls /run/evade | grep -c ^e[0-9][0-9]$) = %d ]; do sleep 0.3; done'; ls /run/evade", s.ways()))
		var missing []string
		left := strings.Fields(ran)
		for i, e := range evasions {
			if slices.Contains(left, filepath.Base(made(i))) == (e.name == s.Refused) {
				missing = append(missing, e.name)
			}
		}
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("%q did not come about, or was to be refused: %s", missing, out)
		}
		return err
	})
	if err != nil {
		out, _ := s.Host.Sh(t.Context(), "cat /run/evade/tried; ps -eo pid,args | tail -20; true")
		t.Fatalf("%v\n%s", err, out)
	}
	return ran
}

// ways is how many are to come about.
func (s Session) ways() int {
	if s.Refused == "" {
		return len(evasions)
	}
	return len(evasions) - 1
}

func (s Session) sh(t testing.TB, script string) {
	t.Helper()
	if _, err := s.Host.Sh(context.WithoutCancel(t.Context()), script); err != nil {
		t.Fatal(err)
	}
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func made(i int) string { return fmt.Sprintf("/run/evade/e%02d", i) }

//go:embed hide
var sources embed.FS

// Equip puts the programs that hide on the host.
func Equip(t testing.TB, h Host) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, sources); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "hide")
	for name, args := range map[string][]string{
		"hide":    {"-static", "-pthread", "hide.c"},
		"storm":   {"-static", "storm.c"},
		"hold":    {"-static", "hold.c"},
		"late.so": {"-shared", "-fPIC", "late.c"},
	} {
		cc := exec.CommandContext(t.Context(), "gcc", append([]string{"-O2", "-Wall", "-Werror", "-o", name}, args...)...)
		cc.Dir = dir
		if out, err := cc.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := fs.ReadFile(os.DirFS(dir), name)
		if err != nil {
			t.Fatal(err)
		}
		put(t, h, name, string(b))
	}
}

func put(t testing.TB, h Host, name, content string) {
	t.Helper()
	if _, err := h.Feed(t.Context(), content, "mkdir -p /usr/lib/lab && rm -f /usr/lib/lab/"+name+" && cat >/usr/lib/lab/"+name+" && chmod 755 /usr/lib/lab/"+name); err != nil {
		t.Fatal(err)
	}
}

// Entries are what the record has of the grant.
func Entries(t testing.TB, f *lab.Fleet, grant string) []Entry {
	t.Helper()
	out, _, err := f.People["cleo"].Run(t.Context(), "", "-o", "ndjson", "audit", "search", "--limit", "0", "--grant", grant)
	if err != nil {
		t.Fatal(err)
	}
	var all []Entry
	for line := range strings.Lines(out) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, e)
	}
	return all
}
