package pair

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// rounds is how many requests are decided on two servers at once, and how many
// while a server dies. Each has people of its own: a code is good once.
const rounds = 4

// atOnce is what a busy machine may make of an instant. What is not told, but
// looked for, takes up to 20 s.
const atOnce = 3 * time.Second

func names(prefix string) []string {
	var all []string
	for i := range 2 * rounds {
		all = append(all, prefix+string('a'+rune(i)))
	}
	return all
}

func ask(t *testing.T, c apiconnect.CurfewClient, h *human) *api.Request {
	t.Helper()
	r, err := c.CreateRequest(t.Context(), &api.CreateRequestRequest{
		Role: "db", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: "round", Code: h.code(t), Key: rand.Text(),
	})
	must(t, err)
	return r
}

// Two servers decide about one fleet, one of them dies in the middle, and each
// request has one result that both tell, that its host holds, and that the
// record has once.
func TestTwoServersOnOneDatabase(t *testing.T) {
	askers, second := names("ask"), append(names("yes"), names("too")...)
	w := newWorld(t, askers, second)
	people := map[string]*human{}
	for i, name := range append(askers, second...) {
		people[name] = w.add(t, []*plane{w.a, w.b}[i%2], name)
	}
	db1 := w.join(t, "db1", w.a)
	grants := map[string]bool{}
	for i := range rounds {
		t.Run(fmt.Sprintf("two approve at once, round %d", i), func(t *testing.T) {
			grants[w.both(t, db1, people[askers[i]], people[second[i]], people[second[2*rounds+i]])] = true
		})
	}
	for i := rounds; i < 2*rounds; i++ {
		t.Run(fmt.Sprintf("a server dies in the middle, round %d", i), func(t *testing.T) {
			grants[w.dies(t, i, db1, people[askers[i]], people[second[i]], people[second[2*rounds+i]])] = true
		})
	}
	t.Run("what one approves is withdrawn by the other at once", func(t *testing.T) { w.revoked(t, db1, grants) })
	t.Run("the record is whole", func(t *testing.T) { w.recorded(t, grants) })
}

// both has a request asked at one server, and approved at both at once.
func (w *world) both(t *testing.T, db1 *agent, asker, yes, too *human) string {
	t.Helper()
	r := ask(t, w.ask(asker), asker)
	// Whoever watches at one server sees what the other does.
	watch, err := asker.b.WatchRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	defer func() { _ = watch.Close() }()
	if !watch.Receive() || watch.Msg().State != "asked" {
		t.Fatalf("%v, %v", watch.Msg(), watch.Err())
	}
	codes := []string{yes.code(t), too.code(t)}
	errs := make([]error, 2)
	var calls sync.WaitGroup
	begun := time.Now()
	for i, c := range []apiconnect.CurfewClient{yes.a, too.b} {
		calls.Go(func() {
			_, errs[i] = c.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: codes[i]})
		})
	}
	calls.Wait()
	lost := errs[0]
	if lost == nil {
		lost = errs[1]
	}
	if (errs[0] == nil) == (errs[1] == nil) || connect.CodeOf(lost) != connect.CodeFailedPrecondition && connect.CodeOf(lost) != connect.CodeAborted {
		t.Fatalf("one has to win: %v, %v", errs[0], errs[1])
	}
	if !watch.Receive() || watch.Msg().State != "issued" {
		t.Fatalf("%v, %v", watch.Msg(), watch.Err())
	}
	if took := time.Since(begun); took > atOnce {
		t.Errorf("the other server's watcher saw it after %v", took)
	}
	return w.same(t, r.Id, asker, db1, begun)
}

func (w *world) ask(h *human) apiconnect.CurfewClient {
	if strings.HasSuffix(h.name, "a") {
		return h.b
	}
	return h.a
}

// same checks that both servers tell the same of the request, and that its host
// has the grant at once.
func (w *world) same(t *testing.T, id string, asker *human, db1 *agent, begun time.Time) string {
	t.Helper()
	one, err := asker.a.GetRequest(t.Context(), &api.GetRequestRequest{Id: id})
	must(t, err)
	other, err := asker.b.GetRequest(t.Context(), &api.GetRequestRequest{Id: id})
	must(t, err)
	if one.State != "issued" || one.Grant == "" || other.Grant != one.Grant || len(one.Approvals) != 1 {
		t.Fatalf("one server has %v, the other %v", one, other)
	}
	until(t, "the grant is on its host", func() bool { return !db1.when(one.Grant).IsZero() })
	if took := db1.when(one.Grant).Sub(begun); took > atOnce {
		t.Errorf("the grant came after %v", took)
	}
	return one.Grant
}

// dies kills the server at which the request is being approved.
func (w *world) dies(t *testing.T, round int, db1 *agent, asker, yes, too *human) string {
	t.Helper()
	r := ask(t, asker.a, asker)
	db1.tell(t, "db1", fmt.Sprintf("before round %d", round))
	code := yes.code(t)
	answered := make(chan error, 1)
	go func() {
		_, err := yes.a.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: code})
		answered <- err
	}()
	// Another moment each round: before it, within it, after it.
	select {
	case err := <-answered:
		answered <- err
	case <-time.After(time.Duration(round-rounds) * 15 * time.Millisecond):
	}
	w.a.kill()
	said := <-answered
	db1.move(w.b)
	now, err := asker.b.GetRequest(t.Context(), &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	t.Logf("the approval was answered with %v, and the request is %s", said, now.State)
	if said == nil && now.State != "issued" {
		t.Fatal("an approval that was answered is lost")
	}
	if now.State == "asked" {
		if _, err := too.b.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: too.code(t)}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the agent is at the other server", db1.client.Connected)
	w.start(t, w.a)
	db1.tell(t, "db1", fmt.Sprintf("after round %d", round))
	id := w.same(t, r.Id, asker, db1, time.Now())
	db1.move(w.a)
	return id
}

// revoked ends every grant but one at one server; the host, which hears the
// other, has none of them an instant later.
func (w *world) revoked(t *testing.T, db1 *agent, grants map[string]bool) {
	t.Helper()
	until(t, "the agent is back", func() bool {
		all, err := w.ada.a.ListHosts(t.Context(), &api.ListHostsRequest{})
		must(t, err)
		return all.Hosts[0].Connected
	})
	var left string
	for id := range grants {
		if left == "" {
			left = id
			continue
		}
		begun := time.Now()
		_, err := w.ada.b.Revoke(t.Context(), &api.RevokeRequest{Grant: id})
		must(t, err)
		until(t, "the host has it no more", func() bool { return !db1.holds(t)[id] })
		if took := time.Since(begun); took > atOnce {
			t.Errorf("it went after %v", took)
		}
	}
	if held := db1.holds(t); len(held) != 1 || !held[left] {
		t.Errorf("the host holds %v, not %s alone", held, left)
	}
}

// recorded checks that the record has each step of each request once, all that
// the host said, and that it can be verified offline.
func (w *world) recorded(t *testing.T, grants map[string]bool) {
	t.Helper()
	for round := rounds; round < 2*rounds; round++ {
		for _, when := range []string{"before", "after"} {
			words := fmt.Sprintf("%s round %d", when, round)
			until(t, "the record has: "+words, func() bool {
				got, err := w.ada.b.SearchEvents(t.Context(), &api.SearchEventsRequest{Host: "db1", Words: words})
				must(t, err)
				if len(got.Events) > 1 {
					t.Fatalf("%s: %d times", words, len(got.Events))
				}
				return len(got.Events) == 1
			})
		}
	}
	if len(grants) != 2*rounds {
		t.Errorf("%d grants of %d requests", len(grants), 2*rounds)
	}
	for id := range grants {
		got, err := w.ada.a.SearchEvents(t.Context(), &api.SearchEventsRequest{Grant: id, Kind: "decision"})
		must(t, err)
		steps := map[string]int{}
		for _, e := range got.Events {
			steps[e.Step]++
		}
		if steps["signed"] != 1 || steps["revoked"] > 1 {
			t.Errorf("grant %s: %v", id, steps)
		}
	}
	bundle := filepath.Join(w.dir, "record")
	w.run(t, w.ada, "audit", "export", "--all", bundle)
	t.Log(w.run(t, w.ada, "verify", bundle))
}
