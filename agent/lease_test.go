package agent

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
	"curfew.internal/clock"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// With the agent dead nobody is heard: the kernel ends what runs as the lease is
// over, and a living agent pushes that out in time.
func TestTheKernelHasTheLeasesEnd(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = time.Minute
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	heard := noon
	a.Heard = func() time.Time { return heard }
	next, err := a.Pass(t.Context(), true)
	if err != nil || a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}).Allow == false {
		t.Fatal(err)
	}
	end := func() time.Time { return noon.Add(time.Duration(w.ends[w.tasks[7]]) - time.Hour) }
	for range 4 {
		if over := heard.Add(g.Lease); !end().Equal(over) || !next.Before(over) || !next.After(w.now) {
			t.Errorf("at %v: the lease is over at %v, the kernel ends at %v, the next look is at %v", w.now, over, end(), next)
		}
		w.now = next
		heard = w.now.Add(-time.Second)
		if next, err = a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // nobody is heard any more
		w.now = next
		if next, err = a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if over := heard.Add(g.Lease); w.tasks[7] != 0 || w.now.Before(over) {
		t.Errorf("at %v, when the lease is over at %v: %v", w.now, over, w.tasks)
	}
}

// A setBack is a wall clock that lost an hour; time since boot did not.
type setBack struct{ fakeClock }

func (c setBack) Now() clock.Reading {
	r := c.fakeClock.Now()
	r.Wall = r.Wall.Add(-time.Hour)
	return r
}

// A sure keep trusts the time that passes, whatever the wall clock says.
type sure struct{ fakeKeep }

func (k sure) Trusted(clock.Reading) time.Time  { return k.now }
func (k sure) Earliest(clock.Reading) time.Time { return k.now }

func TestAClockThatIsSetBackEndsNoLease(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = 5 * time.Minute
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	a.Keep = sure{fakeKeep{w}}
	heard := noon
	a.Heard = func() time.Time { return heard }
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
		t.Fatalf("%+v", got)
	}
	a.Clock = setBack{fakeClock{w}}
	for range 30 {
		w.now, heard = w.now.Add(30*time.Second), w.now.Add(29*time.Second)
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if end := noon.Add(time.Duration(w.ends[w.tasks[7]]) - time.Hour); !end.Equal(heard.Add(g.Lease)) {
		t.Errorf("heard at %v, and the kernel ends it at %v", heard, end)
	}
}

func TestASignOfLifeThatIsYetToComeIsNone(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = 5 * time.Minute
	a := w.agent(t)
	a.Heard = func() time.Time { return w.now.Add(time.Hour) }
	if end := noon.Add(time.Duration(a.deadline(g)) - time.Hour); end.After(w.now.Add(g.Lease)) {
		t.Errorf("at %v the kernel would end it at %v", w.now, end)
	}
}

// A slow host takes its time to say what was there before the first session.
type slowHost struct{ fakeHost }

func (h slowHost) Snapshot(context.Context) ([]byte, error) {
	h.now = h.now.Add(1100 * time.Millisecond)
	return nil, context.DeadlineExceeded
}

// Late labels come after a pass of the loop.
type lateLabels struct {
	fakeLabels
	pass func()
}

func (l lateLabels) Label(pid, fd int, session, end uint64) error {
	l.pass()
	return l.fakeLabels.Label(pid, fd, session, end)
}

func TestALoginIsNotForgottenBeforeItBegins(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, 3*time.Hour)}
	a := w.agent(t)
	pass := func() {
		t.Helper()
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	pass()
	a.Host, a.Labels = slowHost{fakeHost{w}}, lateLabels{fakeLabels{w}, pass}
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
		t.Fatalf("%+v", got)
	}
	pass()
	if w.tasks[7] == 0 {
		t.Error("who was let in is ended as somebody whom nobody knows")
	}
}

func TestAnotherCAOfTheControlPlanesIsNobodysChange(t *testing.T) {
	const old = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZ0yjJfb2Oq0zkpkYxQ9sJv7r2XkE0b4v0nq0lqv3o1 old\n"
	const next = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqVZ9o7y0m0mJ3w5cJ6l0t2b7S2d0kq0J2m5Yx0nA1B new\n"
	w := newWorld()
	a := w.agent(t)
	p := &parts{Folders: Folders{Config: t.TempDir()}}
	file := filepath.Join(p.Config, "ssh_ca.pub")
	var told []string
	look := func() {
		a.mendTrust(t.Context(), p, func(e ledger.Entry) { told = append(told, e.Text) })
	}
	look() // before anything is known, nothing is written
	for _, ca := range []string{old, next, "no key"} {
		a.trust(p, ca)
		look()
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != next || len(told) > 0 {
		t.Errorf("%q, %v; told %q", b, err, told)
	}
	if got := w.told(ledger.Agent); len(got) != 2 || !strings.Contains(got[0].Text, "this host knew none") || strings.Count(got[1].Text, "SHA256:") != 2 {
		t.Errorf("%+v", got)
	}
	for _, harm := range []func() error{
		func() error { return os.WriteFile(file, []byte(next+old), 0o600) },
		func() error { return os.Chmod(file, 0o666) },
		func() error { return os.Chown(file, 12345, 0) },
		func() error { return os.Remove(file) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		told = nil
		look()
		look()
		if b, err := os.ReadFile(file); err != nil || string(b) != next || len(told) != 1 {
			t.Errorf("%q, %v; told %q", b, err, told)
		}
	}
}

// The lease of one grant cuts no login that another stands for: the kernel does
// not end it in the moment in which the loop moves it.
func TestALeaseEndsNoLoginThatAnotherGrantStandsFor(t *testing.T) {
	w := newWorld()
	leased, other := held("g-a", "ana", 0, 3*time.Hour), held("g-b", "ana", 0, 2*time.Hour)
	leased.Lease = time.Minute
	w.offered.Grants = []grant.Grant{leased, other}
	a := w.agent(t)
	heard := noon
	a.Heard = func() time.Time { return heard }
	next, err := a.Pass(t.Context(), true)
	if err != nil || !a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}).Allow {
		t.Fatal(err)
	}
	for range 200 { // nobody is heard any more
		if end := noon.Add(time.Duration(w.ends[w.tasks[7]]) - time.Hour); w.now.Before(other.NotAfter) && !end.Equal(other.NotAfter) {
			t.Fatalf("at %v the kernel would end the login at %v, and %s stands until %v", w.now, end, other.ID, other.NotAfter)
		}
		w.now = next
		if next, err = a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if next.IsZero() {
			break
		}
	}
	if w.now.Before(other.NotAfter) || w.tasks[7] != 0 {
		t.Errorf("at %v: %v", w.now, w.tasks)
	}
}

// Another grant holds a login until it ends itself: its drain is for what runs
// under it, and the kernel is not to wait for that with the agent dead.
func TestTheDrainOfAnotherGrantHoldsNoLogin(t *testing.T) {
	w := newWorld()
	later, drains := held("g-a", "ana", 0, time.Hour), held("g-b", "ana", 0, 50*time.Minute)
	drains.Role.Drain = 30 * time.Minute
	w.offered.Grants = []grant.Grant{later, drains}
	a := w.agent(t)
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if !a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}).Allow {
		t.Fatal("she is not let in")
	}
	if end := noon.Add(time.Duration(w.ends[w.tasks[7]]) - time.Hour); !end.Equal(later.NotAfter) {
		t.Errorf("the kernel would end the login at %v, and it is over at %v", end, later.NotAfter)
	}
}

// A wordHost hears the control plane again while it is looked at.
type wordHost struct {
	fakeHost
	hear func()
}

func (h wordHost) Observe(ctx context.Context) (enforce.State, error) {
	h.hear()
	return h.fakeHost.Observe(ctx)
}

func TestAReceiptSaysThatItWasTheLeaseWhoeverIsHeardMeanwhile(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", 0, 3*time.Hour)
	g.Lease = time.Minute
	w.offered.Grants = []grant.Grant{g}
	a := w.agent(t)
	heard := noon
	a.Heard = func() time.Time { return heard }
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	w.now = noon.Add(2 * time.Minute)
	a.Host = wordHost{fakeHost{w}, func() { heard = w.now }}
	if _, err := a.Pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	removed := w.told(ledger.Removed)
	if len(removed) != 1 {
		t.Fatalf("%+v", removed)
	}
	r, err := ledger.OpenReceipt(removed[0].Receipt, a.ReceiptKey.Public().(ed25519.PublicKey))
	if err != nil || r.Why != "lease" {
		t.Errorf("%+v %v", r, err)
	}
}

// What a lease ended was here, also where its end by time comes before the
// control plane is heard again.
func TestWhatALeaseEndedIsNotSaidToHaveNeverBeenHere(t *testing.T) {
	w := newWorld()
	g := held("g-a", "ana", -time.Hour, time.Hour)
	g.Lease = time.Minute
	w.offered.Grants = []grant.Grant{g}
	o := openedOf(g, noon.Add(-time.Hour))
	o.Installed, o.Ended, o.Told = true, noon, true
	w.opened[g.ID] = o
	a := w.agent(t)
	a.Heard = func() time.Time { return noon.Add(-2 * time.Minute) }
	for _, w.now = range []time.Time{noon.Add(time.Second), g.NotAfter.Add(time.Second)} {
		if _, err := a.Pass(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if said := append(w.told(ledger.SetRefused), w.told(ledger.Removed)...); len(said) != 0 {
		t.Errorf("%+v", said)
	}
	w.offered.Grants = nil
	if _, err := a.Accept(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Pass(t.Context(), true); err != nil || len(w.opened) != 0 {
		t.Errorf("%v %v", w.opened, err)
	}
}
