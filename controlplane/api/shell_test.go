package api_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

// shell is what ana typed on db1, and asks for there.
func (w *world) shell(t *testing.T, alter func(*roster.Wish)) roster.Wish {
	t.Helper()
	m := roster.Wish{
		Typed: roster.Typed{
			Host: "db1", Person: "ana", Session: 0x1f3a, RunAs: "root", Paths: []string{"/usr/bin/systemctl", "/bin/systemctl"},
			Args: []string{"restart", "cron"}, Directory: "/home/an a",
		},
		Role: "db-admin", Reason: "disk full", Duration: time.Hour, Code: w.ana.fresh(t), Key: "k1",
	}
	alter(&m)
	return m
}

// inPlace makes the world one in which ana has another grant on db1: that of
// her shell.
func inPlace(t *testing.T) (*world, capi.Shell) {
	t.Helper()
	w := newWorld(t)
	w.issued(t)
	return w, capi.Shell{Server: w.server}
}

func refusal(t *testing.T, err error, kind roster.Kind, text string) {
	t.Helper()
	r := (*roster.Refusal)(nil)
	if !errors.As(err, &r) || r.Kind != kind || !strings.Contains(r.Text, text) {
		t.Errorf("got %v, want %d: …%s…", err, kind, text)
	}
}

func TestWhatAShellIsOffered(t *testing.T) {
	w, s := inPlace(t)
	for _, c := range []struct {
		name  string
		alter func(*roster.Wish)
		roles int
		text  string // of the refusal
	}{
		{"the role that allows it", func(*roster.Wish) {}, 1, ""},
		{"in no spelling that a role names", func(m *roster.Wish) { m.Paths = []string{"/opt/systemctl"} }, 0, ""},
		{"with other arguments", func(m *roster.Wish) { m.Args = []string{"stop", "cron"} }, 0, ""},
		{"as another account", func(m *roster.Wish) { m.RunAs = "postgres" }, 0, ""},
		{"a shell, which no list of commands allows", func(m *roster.Wish) { m.Shell = true }, 0, ""},
		{"on a host where no grant of hers stands", func(m *roster.Wish) { m.Host = "db2" }, 0, "no grant of ana stands on db2"},
		{"for somebody whom no grant of hers stands", func(m *roster.Wish) { m.Person = "cy" }, 0, "no grant of cy stands on db1"},
		{"for a name that is none", func(m *roster.Wish) { m.Person = "../ana" }, 0, "name"},
		{"a program by a relative path", func(m *roster.Wish) { m.Paths = []string{"systemctl"} }, 0, "absolute paths"},
		{"a command too long to show", func(m *roster.Wish) { m.Args = []string{strings.Repeat("x", 1000)} }, 0, "too long to be shown"},
	} {
		offers, err := s.Offer(t.Context(), w.shell(t, c.alter).Typed)
		if len(offers) != c.roles || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v", c.name, offers, err)
		}
	}
}

func TestARequestFromAShell(t *testing.T) {
	w, s := inPlace(t)
	wish := w.shell(t, func(*roster.Wish) {})
	told := make(chan roster.Told, 10)
	done := make(chan error, 1)
	go func() {
		done <- s.Ask(t.Context(), wish, func(now roster.Told) error { told <- now; return nil })
	}()
	now := <-told
	if now.State != "asked" || now.WaitsFor != "1 of: ben, cy" {
		t.Fatalf("%+v", now)
	}
	r, err := w.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: now.ID})
	must(t, err)
	if o := r.Origin; o.GetHost() != "db1" || o.GetSession() != "1f3a" || o.GetCommand() != "/bin/systemctl restart cron" || o.GetDirectory() != `"/home/an a"` {
		t.Errorf("the approver sees %v", o)
	}
	if !slices.Equal(r.Hosts, []string{"db1"}) {
		t.Errorf("it is for %v", r.Hosts)
	}
	// The same key again goes on with it, and asks for no code.
	again := wish
	again.Code = ""
	ctx, leave := context.WithCancel(t.Context())
	err = s.Ask(ctx, again, func(other roster.Told) error {
		if leave(); other.ID != now.ID {
			t.Errorf("made %s beside %s", other.ID, now.ID)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: now.ID, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	must(t, <-done)
	close(told)
	for now = range told {
	}
	if now.State != "issued" || !strings.HasPrefix(now.Grant, "g-") || !slices.Equal(now.Approved, []string{"ben"}) {
		t.Errorf("%+v", now)
	}
	// The code on the host is in the story, and opened nothing on her devices.
	line, err := w.ana.Timeline(t.Context(), &api.TimelineRequest{Grant: now.Grant})
	must(t, err)
	if !slices.ContainsFunc(line.Moments, func(m *api.Moment) bool {
		return m.Text == "proved herself with totp, typed in session 1f3a on db1 for: /bin/systemctl restart cron"
	}) {
		t.Errorf("%v", line.Moments)
	}
}

func TestAHostAsksForNothingElse(t *testing.T) {
	w, s := inPlace(t)
	mute := func(roster.Told) error { return nil }
	for _, c := range []struct {
		name  string
		alter func(*roster.Wish)
		kind  roster.Kind
		text  string
	}{
		{"a role that does not allow what was typed", func(m *roster.Wish) { m.Args = nil }, roster.Denied, "does not allow what you typed"},
		{"a role that she may not ask for", func(m *roster.Wish) { m.Role = "other" }, roster.Denied, "you may not ask for"},
		{"without a code", func(m *roster.Wish) { m.Code = "" }, roster.Denied, "code is not right"},
		{"without a reason", func(m *roster.Wish) { m.Reason = "" }, roster.Invalid, "say why"},
		{"for longer than the role lasts", func(m *roster.Wish) { m.Duration = 3 * time.Hour }, roster.Invalid, "up to 2h"},
		{"for somebody who has no shell there", func(m *roster.Wish) { m.Person = "cy" }, roster.Denied, "no grant of cy"},
		{"without a key", func(m *roster.Wish) { m.Key = "" }, roster.Invalid, "has a key"},
	} {
		t.Run(c.name, func(t *testing.T) { refusal(t, s.Ask(t.Context(), w.shell(t, c.alter), mute), c.kind, c.text) })
	}
	open, err := w.store.Requests(t.Context(), false, 10)
	must(t, err)
	if len(open) != 1 { // that of her shell
		t.Errorf("%d requests stand", len(open))
	}
}

// The name by which the role allows a program is what approvers are shown: the
// others lead to it by the host's word alone.
func TestAnApproverSeesWhatTheRoleAllows(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(*roster.Wish)
		role  grant.Role
		shown string
	}{
		{"the second spelling is the role's", func(*roster.Wish) {}, grant.Role{}, "/bin/systemctl restart cron"},
		{
			"a lie beside it", func(m *roster.Wish) { m.Paths = []string{"/usr/bin/true", "/bin/systemctl"} },
			grant.Role{},
			"/bin/systemctl restart cron",
		},
		{
			"any command: the first", func(*roster.Wish) {},
			grant.Role{Name: "db-admin", RunAs: []string{"root"}, AnyCommand: true},
			"/usr/bin/systemctl restart cron",
		},
		{
			"as another account", func(m *roster.Wish) { m.RunAs = "postgres" },
			grant.Role{Name: "db-admin", RunAs: []string{"postgres"}, AnyCommand: true},
			"/usr/bin/systemctl restart cron (as postgres)",
		},
		{
			"a shell as another account, whatever was typed", func(m *roster.Wish) { m.Shell, m.RunAs, m.Args = true, "postgres", []string{"-i"} },
			grant.Role{Name: "db-admin", RunAs: []string{"postgres"}, AnyCommand: true},
			"sudo -i (as postgres)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := inPlace(t)
			if c.role.Name != "" {
				w.rules.change(func() { w.rules.role = c.role })
			}
			wish := w.shell(t, c.alter)
			for range 2 { // and again with the same key
				ctx, leave := context.WithCancel(t.Context())
				err := s.Ask(ctx, wish, func(now roster.Told) error {
					r, err := w.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: now.ID})
					if err != nil || r.Origin.Command != c.shown {
						t.Errorf("%v, %v", r.GetOrigin(), err)
					}
					leave()
					return nil
				})
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
}

// Who types nonsense on a host, in the name of somebody, does not keep her
// from her own devices, nor from other hosts; and has no more tries than a thief
// of a device. All hosts together have not many more. Each guess stands in the
// record.
func TestCodesOnHostsCountApart(t *testing.T) {
	w, s := inPlace(t)
	for _, host := range []string{"db2", "db3", "db4", "db5"} {
		if host != "db2" {
			w.addHost(t, host, "db")
		}
		r, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts = []string{host} }))
		must(t, err)
		_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
		must(t, err)
	}
	mute := func(roster.Told) error { return nil }
	wrong := w.shell(t, func(m *roster.Wish) { m.Code = "000000" })
	guess := func(host string) error {
		wrong.Host = host
		return s.Ask(t.Context(), wrong, mute)
	}
	right := func(host, key string) error {
		ctx, leave := context.WithCancel(t.Context())
		return s.Ask(ctx, w.shell(t, func(m *roster.Wish) { m.Host, m.Key = host, key }), func(roster.Told) error { leave(); return nil })
	}
	for range 5 {
		refusal(t, guess("db1"), roster.Denied, "code is not right")
	}
	refusal(t, right("db1", "k1"), roster.TooMuch, "too many wrong codes were typed on this host")
	if err := right("db2", "k2"); !errors.Is(err, context.Canceled) {
		t.Errorf("another host pays for it: %v", err)
	}
	said, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "refused", Person: "ana"})
	must(t, err)
	if n := len(said.Events); n != 5 || said.Events[0].Text != "a wrong code of ana's second factor, typed in session 1f3a on db1 for: /bin/systemctl restart cron" {
		t.Errorf("%d guesses in the record: %v", n, said.Events)
	}
	for _, host := range []string{"db2", "db3", "db4"} {
		for range 5 {
			refusal(t, guess(host), roster.Denied, "code is not right")
		}
	}
	refusal(t, guess("db5"), roster.TooMuch, "too many wrong codes were typed on hosts")
	w.ask(t) // on her laptop
	w.clock.pass(5 * time.Minute)
	if err := right("db5", "k3"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.clock.pass(10 * time.Minute)
	if err := right("db1", "k4"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// counted counts what is read of a store.
type counted struct {
	capi.Store
	fleets, requests atomic.Int32
	looked           func(times int32)
}

func (c *counted) Hosts(ctx context.Context) ([]roster.Host, error) {
	c.fleets.Add(1)
	return c.Store.Hosts(ctx)
}

func (c *counted) Request(ctx context.Context, id string) (roster.Request, error) {
	c.looked(c.requests.Add(1))
	return c.Store.Request(ctx, id)
}

// Who waits in a shell looks again every second: not through the whole fleet.
func TestAWaitingShellReadsNoFleet(t *testing.T) {
	w, s := inPlace(t)
	ctx, leave := context.WithCancel(t.Context())
	c := &counted{Store: s.Store, looked: func(times int32) {
		if times > 5 {
			leave()
		}
	}}
	s.Store = c
	before := int32(-1)
	err := s.Ask(ctx, w.shell(t, func(*roster.Wish) {}), func(roster.Told) error {
		before = c.fleets.Load()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := c.fleets.Load() - before; n > 0 || before < 0 {
		t.Errorf("it read the fleet %d times while it waited", n)
	}
}

func TestAShellTakesBackItsOwn(t *testing.T) {
	w, s := inPlace(t)
	ctx, leave := context.WithCancel(t.Context())
	var made roster.Told
	err := s.Ask(ctx, w.shell(t, func(*roster.Wish) {}), func(now roster.Told) error { made = now; leave(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for name, c := range map[string][3]string{
		"another host's":   {"db2", "ana", "k1"},
		"another person's": {"db1", "cy", "k1"},
		"another key's":    {"db1", "ana", "k2"},
	} {
		if _, err := s.TakeBack(t.Context(), c[0], c[1], c[2]); err == nil {
			t.Errorf("%s is taken back", name)
		}
	}
	now, err := s.TakeBack(t.Context(), "db1", "ana", "k1")
	if err != nil || now.State != "withdrawn" || now.ID != made.ID {
		t.Errorf("%+v, %v", now, err)
	}
	r, err := w.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: made.ID})
	must(t, err)
	_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "withdrawn by ana")
	// What was approved first is not undone.
	_ = s.Ask(t.Context(), w.shell(t, func(m *roster.Wish) { m.Key = "k3" }), func(now roster.Told) error {
		if now.State != "asked" {
			return nil
		}
		r, err := w.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: now.ID})
		must(t, err)
		_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
		return err
	})
	if now, err := s.TakeBack(t.Context(), "db1", "ana", "k3"); err != nil || now.State != "issued" || now.Grant == "" {
		t.Errorf("%+v, %v", now, err)
	}
}

// What a shell typed is shown so that words are told apart and nothing hides.
func TestWhatWasTypedIsShownWhole(t *testing.T) {
	w, s := inPlace(t)
	w.rules.change(func() { w.rules.role = grant.Role{Name: "db-admin", RunAs: []string{"root"}, AnyCommand: true} })
	ctx, leave := context.WithCancel(t.Context())
	err := s.Ask(ctx, w.shell(t, func(m *roster.Wish) {
		m.Args = []string{"a b", "", "\u202etxt.exe", "x;y", "--now"}
	}), func(now roster.Told) error {
		r, err := w.ben.GetRequest(t.Context(), &api.GetRequestRequest{Id: now.ID})
		if want := `/usr/bin/systemctl "a b" "" "\u202etxt.exe" "x;y" --now`; err != nil || r.Origin.Command != want {
			t.Errorf("%v, %v", r.GetOrigin(), err)
		}
		leave()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
