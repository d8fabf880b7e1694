package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/oncall"
	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/store"
)

// handClock shows what it is set to.
type handClock struct{ now time.Time }

func (c *handClock) Now() clock.Reading { return clock.Reading{Wall: c.now} }

func (*handClock) After(time.Duration) <-chan time.Time { return nil }

// Who is on call changes with the time alone, forth and back, and with the
// policy, though the hour is the same.
func TestThePolicyInForceKnowsWhoIsOnCall(t *testing.T) {
	read := func(people string) policy.Policy {
		p, problems := policy.Parse(map[string][]byte{"p.yaml": []byte(`groups:
  oncall: {rotation: ` + people + `, from: 2027-01-04, at: '09:00', zone: Europe/Berlin}
roles:
  ops: {all_hosts: true, max_duration: 1h, approval: {by: [group:oncall]}}
eligible:
  - {role: ops, people: [ana]}
`)})
		if !policy.Holds(problems) {
			t.Fatal(problems)
		}
		return p
	}
	monday := time.Date(2027, 1, 11, 8, 0, 0, 0, time.UTC)
	c := &handClock{now: monday.Add(-time.Second)}
	r := &rules{clock: c, now: read("[ben, cleo]"), turn: 1, onCall: oncall.New(nil, c, slog.Default(), nil)}
	is := func(who string) {
		t.Helper()
		for _, name := range []string{"ben", "cleo", "dan"} {
			if r.MayApprove(name, "ana", "ops") != (name == who) {
				t.Errorf("%v: %s may approve: %v", c.now, name, name != who)
			}
		}
	}
	is("ben")
	c.now = monday
	is("cleo")
	c.now = monday.Add(-time.Hour)
	is("ben")
	c.now = monday.AddDate(0, 0, -14)
	is("")
	c.now = monday
	is("cleo")
	r.now, r.turn = read("[ben, dan]"), 2
	is("dan")
}

// Who is on call elsewhere is looked up again when the source says something
// else, and when what it said counts no more.
func TestThePolicyInForceAsksTheOnCallSource(t *testing.T) {
	p, problems := policy.Parse(map[string][]byte{"p.yaml": []byte(`groups:
  oncall: {on_call: primary}
roles:
  ops: {all_hosts: true, max_duration: 1h, approval: {by: [group:oncall]}}
eligible:
  - {role: ops, people: [ana]}
`)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	monday := time.Date(2027, 1, 11, 8, 0, 0, 0, time.UTC)
	file, c := filepath.Join(t.TempDir(), "oncall"), &handClock{now: monday}
	r := newRules(Config{OnCall: &oncall.Config{File: file}}, nil, c, slog.New(slog.DiscardHandler))
	r.now, r.turn = p, 1
	says := func(who, warns string) {
		t.Helper()
		for _, name := range []string{"ben", "cleo"} {
			if r.MayApprove(name, "ana", "ops") != (name == who) {
				t.Errorf("%v: %s may approve: %v", c.now, name, name != who)
			}
		}
		if v := r.State(); !strings.Contains(strings.Join(v.Warnings, "\n"), warns) || (v.Calls.Why == "") != (who != "") {
			t.Errorf("%v, %+v", v.Warnings, v.Calls)
		}
	}
	put := func(who string) {
		t.Helper()
		text := "rotations: {primary: [{person: " + who + ", from: 2027-01-01T00:00:00Z, until: 2027-02-01T00:00:00Z}]}"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.onCall.Ask(t.Context())
	}
	says("", "")
	put("ben")
	says("ben", "")
	put("cleo")
	says("cleo", "")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.now = monday.Add(time.Minute)
	r.onCall.Ask(t.Context())
	says("cleo", "the on-call source gives no answer: open ")
	c.now = monday.Add(5 * time.Minute)
	says("", "the one before counts until 2027-01-11T08:05:00Z")
	put("cleo")
	says("cleo", "")
}

// readRules are those of a folder with one role, and a database with ana, whom
// a directory has.
func readRules(t *testing.T) (r *rules, ana roster.DirUser) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := &handClock{now: time.Date(2027, 1, 11, 8, 0, 0, 0, time.UTC)}
	text := "roles:\n  ops: {all_hosts: true, max_duration: 1h, approval: {by: [ben]}}\neligible:\n  - {role: ops, people: [ana]}\n"
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ana, err = s.AddDirUser(t.Context(), roster.DirUser{ID: "u-1", Person: "ana", UserName: "ana", Active: true}, roster.Act{By: "root", At: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return newRules(Config{PolicyDir: dir}, s, c, slog.New(slog.DiscardHandler)), ana
}

// Whoever is judged within a change of the database's holds its turn, which a
// policy that comes into force waits for.
func TestNobodyWaitsForAPolicyThatWaitsForHer(t *testing.T) {
	r, ana := readRules(t)
	waits, loaded, judged := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	keep := r.keep
	r.keep = func(ctx context.Context, version string, at time.Time) error {
		close(waits)
		return keep(ctx, version, at)
	}
	go func() {
		_, err := r.store.ChangeDirUser(context.WithoutCancel(t.Context()), ana.ID, roster.Act{By: "root", At: r.clock.Now().Wall}, func(u roster.DirUser) (roster.DirUser, error) {
			go func() {
				r.load(context.WithoutCancel(t.Context()))
				close(loaded)
			}()
			<-waits
			r.Offers("ana", nil, r.clock.Now().Wall)
			return u, nil
		})
		judged <- err
	}()
	select {
	case err := <-judged:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("she waits for the policy, and the policy for her")
	}
	<-loaded
	if len(r.Offers("ana", nil, r.clock.Now().Wall)) != 1 {
		t.Error("the policy did not come into force")
	}
}

// A policy of which the database did not take that it came into force is told
// later, and once.
func TestThePolicyInForceIsInTheRecord(t *testing.T) {
	r, _ := readRules(t)
	keep := r.keep
	r.keep = func(context.Context, string, time.Time) error { return errors.New("disk full") }
	r.load(t.Context())
	if len(r.Offers("ana", nil, r.clock.Now().Wall)) != 1 {
		t.Error("the policy did not come into force")
	}
	r.keep = keep
	r.load(t.Context())
	r.load(t.Context())
	events, err := r.store.Events(t.Context(), roster.Search{Words: []string{"came", "into", "force"}, Limit: 10})
	if err != nil || len(events) != 1 || !strings.Contains(events[0].Entry.Text, r.State().Version) {
		t.Errorf("%v, %v", events, err)
	}
}

// minutes is a clock whose minute is over when minute says so. The first wait
// for a quiet folder never ends, each later one at once.
type minutes struct {
	handClock
	minute, quiet chan time.Time
	waits         int
}

func (c *minutes) After(d time.Duration) <-chan time.Time {
	switch c.waits++; {
	case d == lookAgain && c.minute == nil:
		c.minute = make(chan time.Time, 1)
		return c.minute
	case d == settle && c.waits > 1:
		return c.quiet
	}
	return nil
}

// A folder that gives no sign is read again after a minute, however much
// happens on the server meanwhile.
func TestTheFolderIsReadEachMinute(t *testing.T) {
	r, ana := readRules(t)
	c := &minutes{handClock: handClock{now: r.clock.Now().Wall}, quiet: make(chan time.Time)}
	close(c.quiet)
	r.clock = c
	text := "groups: {sre: {directory: SRE}}\nroles:\n  ops: {all_hosts: true, max_duration: 1h, approval: {by: [ben]}}\neligible:\n  - {role: ops, people: [ana]}\n"
	put := func(text string) {
		t.Helper()
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "p.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(text)
	r.load(t.Context())
	was := r.State().Version
	if err := os.RemoveAll(r.dir); err != nil { // so that nothing of it can be watched
		t.Fatal(err)
	}
	looked, came := make(chan struct{}), make(chan struct{})
	r.kept = func(context.Context) (roster.Directory, error) {
		looked <- struct{}{}
		return roster.Directory{}, nil
	}
	r.keep = func(context.Context, string, time.Time) error {
		close(came)
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.watch(ctx, nil) }()
	for n, seen := 0, false; !seen; n++ {
		if _, err := r.store.ChangeDirUser(t.Context(), ana.ID, roster.Act{By: "root", At: c.now}, func(u roster.DirUser) (roster.DirUser, error) {
			u.FullName = "Ana " + strings.Repeat("x", n%50)
			return u, nil
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-looked:
			seen = true
		case <-time.After(100 * time.Millisecond): // it does not look yet
		}
	}
	put(text + "  - {role: ops, people: [cleo]}\n")
	c.minute <- c.now
	deadline := time.After(30 * time.Second)
	for read := false; !read; {
		select {
		case <-looked: // of what came before
		case <-came:
			read = true
		case <-deadline:
			t.Fatalf("policy %s is in force as before", was)
		}
	}
	stop()
	for over := false; !over; {
		select {
		case <-looked:
		case err := <-ended:
			if over = true; err != nil {
				t.Error(err)
			}
		}
	}
}
