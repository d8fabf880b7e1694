package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"curfew.internal/agent/uplink"
	"curfew.internal/wire/shell"
)

// plane is a control plane of one role, which one word decides.
type plane struct {
	offers  []uplink.Offer
	err     error
	breaks  int                // so often the stream breaks before it is decided
	loses   int                // so often the first answer is lost
	no      error              // said to what is asked once none is lost any more
	backErr error              // said to what is taken back
	decided func() uplink.Told // waits for the decision
	asked   []uplink.Wish
	back    uplink.Told // what taking back finds

	mu    sync.Mutex // guards what follows
	taken []string   // keys that were taken back
}

func (p *plane) Offer(context.Context, uplink.Typed) ([]uplink.Offer, error) { return p.offers, p.err }

func (p *plane) Ask(ctx context.Context, w uplink.Wish, tell func(uplink.Told)) error {
	p.asked = append(p.asked, w)
	if p.loses > 0 {
		p.loses--
		return fmt.Errorf("%w: reset", uplink.ErrAway)
	}
	if err := errors.Join(p.err, p.no); err != nil {
		return err
	}
	tell(uplink.Told{ID: "r-1", State: "asked", WaitsFor: "1 of: ben", Lapses: noon.Add(time.Hour)})
	if p.breaks > 0 {
		p.breaks--
		return fmt.Errorf("%w: reset", uplink.ErrAway)
	}
	if p.decided == nil {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", uplink.ErrAway, ctx.Err())
	}
	tell(p.decided())
	return nil
}

func (p *plane) TakeBack(_ context.Context, person, key string) (uplink.Told, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = append(p.taken, person+" "+key)
	return p.back, errors.Join(p.err, p.backErr)
}

// soonClock fires at once.
type soonClock struct{ fakeClock }

func (soonClock) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- noon
	return c
}

// A talk is what ana says in her shell, and what she is told.
type talk struct {
	world *world
	agent *Agent
	plane *plane
	lines chan shell.Line // closed: she has left
	told  []string
	waits chan struct{} // delivers at each state that she is shown
}

// newTalk is on a host where a grant of ana's stands, which allows
// /usr/bin/id as root, and of which her shell is a session.
func newTalk(t *testing.T) *talk {
	t.Helper()
	w := newWorld()
	w.offered.Grants = append(w.offered.Grants, held("g-a", "ana", 0, time.Hour))
	a := w.agent(t)
	k := &talk{world: w, agent: a, plane: &plane{offers: []uplink.Offer{{Role: "db-admin", Most: time.Hour}}}, lines: make(chan shell.Line, 9), waits: make(chan struct{}, 9)}
	a.Plane, a.Clock = k.plane, soonClock{fakeClock{w}}
	w.tasks[7] = 99
	if err := a.put(Session{ID: 99, Person: "ana", Grant: "g-a"}); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *talk) run(t *testing.T, alter func(*Visit)) []string {
	t.Helper()
	v := Visit{
		UID: k.world.offered.Grants[0].Person.UID, PID: 7, Gone: func() bool { return false },
		Hear: func(ctx context.Context) (shell.Line, error) {
			select {
			case <-ctx.Done():
				return shell.Line{}, ctx.Err()
			case l, ok := <-k.lines:
				if !ok {
					return l, io.EOF
				}
				return l, nil
			}
		},
		Tell: func(_ context.Context, r shell.Reply) error {
			switch {
			case r.Run != nil:
				k.told = append(k.told, strings.TrimSpace("run "+r.Run.Grant))
			case r.No != "":
				k.told = append(k.told, r.No)
			case r.State != nil && r.State.Away:
				k.told = append(k.told, "away")
			case r.State != nil:
				k.told = append(k.told, "waits for "+r.State.WaitsFor)
				k.waits <- struct{}{}
			default:
				k.told = append(k.told, "offers "+r.Offers[0].Role)
			}
			return nil
		},
	}
	if alter != nil {
		alter(&v)
	}
	if err := k.agent.Elevate(t.Context(), v); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	return k.told
}

func restart() shell.Line {
	return shell.Line{Typed: &shell.Typed{RunAs: "root", Paths: []string{"/usr/bin/systemctl"}, Args: []string{"restart", "cron"}, Directory: "/"}}
}

func choose() shell.Line {
	return shell.Line{Choice: &shell.Choice{Role: "db-admin", Code: "1", For: time.Hour}}
}

func (k *talk) say(lines ...shell.Line) {
	for _, l := range lines {
		k.lines <- l
	}
}

func TestWhoeverIsNotOursIsNotAsked(t *testing.T) {
	for name, c := range map[string]struct {
		typed shell.Line
		alter func(*Visit)
		told  string
	}{
		"root":                      {restart(), func(v *Visit) { v.UID = 0 }, "run"},
		"an account of the host's":  {restart(), func(v *Visit) { v.UID = 1000 }, "run"},
		"a uid that no grant gives": {restart(), func(v *Visit) { v.UID++ }, "run"},
		"what a grant allows":       {shell.Line{Typed: &shell.Typed{RunAs: "root", Paths: []string{"/bin/id", "/usr/bin/id"}}}, nil, "run"},
		"a process without a label": {restart(), func(v *Visit) { v.PID = 8 }, errShell.Error()},
		"one that has ended":        {restart(), func(v *Visit) { v.Gone = func() bool { return true } }, errShell.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTalk(t)
			k.say(c.typed)
			if got := k.run(t, c.alter); len(got) != 1 || got[0] != c.told {
				t.Errorf("%q", got)
			}
			if len(k.plane.asked) > 0 {
				t.Error("somebody was asked")
			}
		})
	}
}

// The label and the account have to be of one person: who became somebody
// else with su asks for nobody.
func TestNobodyAsksInAnothersName(t *testing.T) {
	k := newTalk(t)
	if err := k.agent.put(Session{ID: 99, Person: "eve", Grant: "g-e"}); err != nil {
		t.Fatal(err)
	}
	k.say(restart())
	if got := k.run(t, nil); len(got) != 1 || got[0] != errShell.Error() {
		t.Errorf("%q", got)
	}
}

func TestElevation(t *testing.T) {
	issued := func() uplink.Told { return uplink.Told{ID: "r-1", State: "issued", Grant: "g-a"} }
	for _, c := range []struct {
		name  string
		set   func(*talk)
		told  []string
		asked int
	}{
		{"approved, and on the host", func(k *talk) {
			k.plane.decided = issued
			k.agent.opened = map[string]Opened{"g-a": {Installed: true}}
		}, []string{"offers db-admin", "waits for 1 of: ben", "run g-a"}, 1},
		{"denied: by whom and why", func(k *talk) {
			k.plane.decided = func() uplink.Told { return uplink.Told{ID: "r-1", State: "denied", By: "ben", Note: "not now"} }
		}, []string{"offers db-admin", "waits for 1 of: ben", "request r-1 was denied by ben: not now"}, 1},
		{"a stream that breaks is taken up again with the same key", func(k *talk) {
			k.plane.breaks, k.plane.decided = 2, issued
			k.agent.opened = map[string]Opened{"g-a": {Installed: true}}
		}, []string{"offers db-admin", "waits for 1 of: ben", "away", "waits for 1 of: ben", "away", "waits for 1 of: ben", "run g-a"}, 3},
		{
			"no role would do", func(k *talk) { k.plane.offers = nil },
			[]string{"no grant of yours on db1 allows this, and nobody was asked for one: no role that you may ask for would allow it either: `curfew roles` lists them"},
			0,
		},
		{
			"the control plane says no", func(k *talk) { k.plane.err = &uplink.Refusal{Text: "not you"} },
			[]string{"no grant of yours on db1 allows this, and nobody was asked for one: not you"},
			0,
		},
		{
			"the control plane is away", func(k *talk) { k.plane.err = uplink.ErrAway },
			[]string{"no grant of yours on db1 allows this, and nobody was asked for one: " + why(uplink.ErrAway)},
			0,
		},
		{"a first answer that is lost is asked for again with the same key", func(k *talk) {
			k.plane.loses, k.plane.decided = 2, issued
			k.agent.opened = map[string]Opened{"g-a": {Installed: true}}
		}, []string{"offers db-admin", "away", "away", "waits for 1 of: ben", "run g-a"}, 3},
		{"no answer comes: it is taken back", func(k *talk) {
			k.plane.loses, k.plane.back = 99, uplink.Told{ID: "r-1", State: "withdrawn"}
		}, []string{"offers db-admin", "away", "away", "away", "away", "request r-1 is withdrawn"}, askTries},
		{"no answer comes, and it was approved meanwhile", func(k *talk) {
			k.plane.loses, k.plane.back = 99, uplink.Told{ID: "r-1", State: "issued", Grant: "g-a"}
		}, []string{
			"offers db-admin", "away", "away", "away", "away",
			"too late: request r-1 was approved before it could be withdrawn. Nothing was run; `curfew revoke g-a` ends the grant",
		}, askTries},
		{"no answer comes, nor to the taking back: somebody may have been asked", func(k *talk) {
			k.plane.loses, k.plane.backErr = 99, uplink.ErrAway
		}, []string{
			"offers db-admin", "away", "away", "away", "away",
			"the control plane's answer was lost on the way, and somebody may have been asked: `curfew requests` on a computer of yours shows it, and `curfew withdraw` takes it back",
		}, askTries},
		{"an answer was lost, and then comes a no", func(k *talk) {
			k.plane.loses, k.plane.no, k.plane.backErr = 1, &uplink.Refusal{Text: "that code is not right"}, &uplink.Refusal{Text: "no such request"}
		}, []string{
			"offers db-admin", "away",
			"the control plane's answer was lost on the way, and it knows of no request of yours from this shell now: try again, and see `curfew requests` on a computer of yours",
		}, 2},
		{"a no that says so: nobody was asked", func(k *talk) {
			k.plane.no = &uplink.Refusal{Text: "that code is not right"}
		}, []string{"offers db-admin", "nobody was asked: that code is not right"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newTalk(t)
			c.set(k)
			k.say(restart(), choose())
			if got := k.run(t, nil); strings.Join(got, "\n") != strings.Join(c.told, "\n") {
				t.Errorf("%q", got)
			}
			if len(k.plane.asked) != c.asked {
				t.Fatalf("asked %d times", len(k.plane.asked))
			}
			for _, w := range k.plane.asked {
				if w.Key == "" || w.Key != k.plane.asked[0].Key || w.Person != "ana" || w.Session != 99 {
					t.Errorf("%+v", w.Typed)
				}
			}
		})
	}
}

func TestWhoGivesUpTakesBack(t *testing.T) {
	leave := map[string]func(*talk){
		"Ctrl-C":            func(k *talk) { k.say(shell.Line{GiveUp: true}) },
		"the terminal hung": func(k *talk) { close(k.lines) },
	}
	for how, leave := range leave {
		for state, want := range map[string]string{
			"withdrawn": "request r-1 is withdrawn",
			"issued":    "too late: request r-1 was approved before it could be withdrawn. Nothing was run; `curfew revoke g-a` ends the grant",
			"denied":    "request r-1 was denied by ben",
		} {
			t.Run(how+", "+state, func(t *testing.T) {
				k := newTalk(t)
				k.plane.back = uplink.Told{ID: "r-1", State: state, Grant: "g-a", By: "ben"}
				if state != "denied" {
					k.plane.back.By = ""
				}
				k.say(restart(), choose())
				var left sync.WaitGroup
				left.Go(func() { <-k.waits; leave(k) })
				got := k.run(t, nil)
				left.Wait()
				if got[len(got)-1] != want || len(k.plane.taken) != 1 || k.plane.taken[0] != "ana "+k.plane.asked[0].Key {
					t.Errorf("%q, %q", got, k.plane.taken)
				}
			})
		}
	}
}

// Who leaves before she has chosen has asked for nothing.
func TestWhoThinksBetterOfItAsksForNothing(t *testing.T) {
	k := newTalk(t)
	k.say(restart(), shell.Line{GiveUp: true})
	if got := k.run(t, nil); len(got) != 1 || len(k.plane.asked)+len(k.plane.taken) > 0 {
		t.Errorf("%q", got)
	}
}

// What approvers are shown is the file that was typed: paths that lead
// elsewhere are not passed on.
func TestOnlySpellingsOfOneProgramArePassedOn(t *testing.T) {
	k := newTalk(t)
	k.plane.decided = func() uplink.Told { return uplink.Told{ID: "r-1", State: "denied"} }
	l := restart()
	l.Typed.Paths = []string{"/home/ana/bin/systemctl", "/usr/bin/systemctl", "/bin/sh"}
	k.say(l, choose())
	k.run(t, nil)
	if len(k.plane.asked) != 1 || !slices.Equal(k.plane.asked[0].Paths, []string{"/home/ana/bin/systemctl", "/usr/bin/systemctl"}) {
		t.Errorf("%+v", k.plane.asked)
	}
	k = newTalk(t)
	l.Typed.Paths = nil
	k.say(l)
	if got := k.run(t, nil); len(got) != 1 || got[0] != errNoProgram.Error() {
		t.Errorf("%q", got)
	}
}

// One person does not use up what the control plane hears of the whole host.
func TestOnePersonAsksNotWithoutEnd(t *testing.T) {
	k := newTalk(t)
	k.plane.decided = func() uplink.Told { return uplink.Told{ID: "r-1", State: "denied"} }
	for range askBurst {
		k.say(restart(), choose())
		k.told = nil
		if got := k.run(t, nil); got[len(got)-1] != "request r-1 was denied" {
			t.Fatalf("%q", got)
		}
	}
	k.say(restart(), choose())
	if got := k.run(t, nil); got[len(got)-1] != "nobody was asked: "+errTooOften.Text || len(k.plane.asked) != askBurst {
		t.Errorf("%q", got)
	}
	for k.agent.looksUp.take("ana", k.agent.Clock.Now()) {
	}
	k.say(restart())
	k.told = nil
	if got := k.run(t, nil); len(got) != 1 || got[0] != "no grant of yours on db1 allows this, and nobody was asked for one: "+errTooOften.Text {
		t.Errorf("%q", got)
	}
	if !k.agent.asks.take("bob", k.agent.Clock.Now()) {
		t.Error("another person pays for it")
	}
	k.world.now = k.world.now.Add(askEvery)
	if !k.agent.asks.take("ana", k.agent.Clock.Now()) {
		t.Error("she may never ask again")
	}
}
