package notify

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// picky is a receiver that refuses some messages, and tells what it took.
type picky struct {
	*httptest.Server

	mu    sync.Mutex // guards what follows
	never []string   // words of messages that it does not take
	took  []string
}

func newPicky(t *testing.T, never ...string) *picky {
	t.Helper()
	p := &picky{never: never}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		p.mu.Lock()
		defer p.mu.Unlock()
		_, word, _ := strings.Cut(string(b), "word ")
		word, _, _ = strings.Cut(word, `"`)
		if slices.Contains(p.never, word) || slices.Contains(p.never, "all") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.took = append(p.took, word)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *picky) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.took, " ")
}

func (p *picky) refuses(never ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.never = never
}

// look has a notifier look as often as it would within some minutes.
func look(t *testing.T, w *world, target Target) *Notifier {
	t.Helper()
	n, err := New("", []Target{target}, w, w, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	again(t, n)
	return n
}

func again(t *testing.T, n *Notifier) {
	t.Helper()
	for range 4 * patience {
		_, _ = n.turn(t.Context(), n.lines[0])
	}
}

func say(w *world, words ...string) {
	for _, word := range words {
		w.happen(ledger.Entry{Kind: ledger.Drift, Text: "word " + word})
		for range 3 {
			w.happen(ledger.Entry{Kind: ledger.Exec, Text: "no news"})
		}
	}
}

// What a receiver refuses steps aside: what comes after it is told, in order and
// once, and it is tried again, over a restart too.
func TestWhatIsRefusedHoldsNothingUp(t *testing.T) {
	w, p := newWorld(), newPicky(t, "bad", "worse")
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, p.URL)}
	look(t, w, target)
	say(w, "one", "bad", "worse", "two", "three")
	n := look(t, w, target)
	if got := p.told(); got != "one two three" {
		t.Fatalf("told %q", got)
	}
	say(w, "four")
	if _, err := n.turn(t.Context(), n.lines[0]); err != nil || p.told() != "one two three four" {
		t.Errorf("what stands aside keeps others waiting: %v, %q", err, p.told())
	}
	p.refuses("worse")
	n = look(t, w, target) // another server, or this one after a restart
	say(w, "five")
	again(t, n)
	if got := p.told(); got != "one two three four bad five" {
		t.Errorf("told %q", got)
	}
	w.pass(2 * news)
	again(t, n) // it is no news any more
	p.refuses()
	w.pass(retryMost)
	again(t, n)
	again(t, look(t, w, target))
	if got := p.told(); got != "one two three four bad five" {
		t.Errorf("told %q", got)
	}
}

// A receiver that takes nothing is one that is ill: all waits, in order.
func TestNothingStepsAsideForNothing(t *testing.T) {
	w, p := newWorld(), newPicky(t, "all")
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, p.URL)}
	look(t, w, target)
	var want []string
	for i := range 2 * besides {
		want = append(want, strconv.Itoa(i))
	}
	say(w, want...)
	n := look(t, w, target)
	again(t, n)
	p.refuses()
	again(t, n)
	if got := p.told(); got != strings.Join(want, " ") {
		t.Errorf("told %q", got)
	}
}

// That nobody answers says nothing of a message: a receiver that then comes up,
// and is not ready yet, is asked with the same patience.
func TestNoAnswerIsNoRefusal(t *testing.T) {
	w, p := newWorld(), newPicky(t, "bad")
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, "http://127.0.0.1:1")}
	look(t, w, target)
	say(w, "bad", "two")
	n := look(t, w, target)
	if err := os.WriteFile(target.ToFile, []byte(p.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	for range patience - 1 {
		if _, err := n.turn(t.Context(), n.lines[0]); err == nil || p.told() != "" {
			t.Fatalf("it steps aside at once: %v, %q", err, p.told())
		}
	}
	if _, err := n.turn(t.Context(), n.lines[0]); err != nil || p.told() != "two" {
		t.Errorf("it does not step aside: %v, %q", err, p.told())
	}
}

// More that is refused than can stand aside waits as before.
func TestOnlySomeStandAside(t *testing.T) {
	w, p := newWorld(), newPicky(t, "bad")
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, p.URL)}
	look(t, w, target)
	for range besides {
		say(w, "bad")
	}
	say(w, "one", "bad", "two")
	n := look(t, w, target)
	again(t, n)
	if got := p.told(); got != "one" {
		t.Errorf("told %q", got)
	}
	p.refuses()
	w.pass(retryMost)
	again(t, n)
	if got := p.told(); got != "one bad bad bad bad bad two" {
		t.Errorf("told %q", got)
	}
}

// grants is a world in which two grants stand.
type grants struct {
	*world
	all []roster.Request
}

func (g grants) Requests(context.Context, bool, int) ([]roster.Request, error) { return g.all, nil }

// A warning that a receiver refuses keeps nobody from hearing of another end.
func TestARefusedWarningKeepsNoOther(t *testing.T) {
	w, p := newWorld(), newPicky(t, `bad\`)
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, p.URL)}
	look(t, w, target)
	g := grants{world: w}
	for _, person := range []string{"bad", "good"} {
		g.all = append(g.all, roster.Request{
			ID: "r-" + person, Person: "x", State: "issued", Asked: roster.Asked{Role: "word " + person + `"`, Hosts: []string{"db1"}},
			Grant: &grant.Grant{ID: "g-" + person, NotBefore: noon, NotAfter: noon.Add(15*time.Minute + time.Second)},
		})
	}
	w.pass(2 * time.Second)
	n, err := New("", []Target{target}, g, g, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	again(t, n)
	if got := p.told(); got != `good\` {
		t.Errorf("told %q", got)
	}
}
