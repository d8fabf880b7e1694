package notify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

// world is a store and a clock.
type world struct {
	turns sync.Map // names of what somebody does alone

	mu      sync.Mutex // guards what follows
	now     time.Time
	events  []roster.Event
	request roster.Request
	cursors map[string]uint64
	people  people
}

func newWorld() *world {
	return &world{now: noon, cursors: map[string]uint64{}, request: roster.Request{
		ID: "r-1", Person: "ana", State: "asked",
		Asked: roster.Asked{Role: "ops", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "disk <!channel> full\n&", Needed: 1},
	}}
}

func (w *world) Now() clock.Reading {
	w.mu.Lock()
	defer w.mu.Unlock()
	return clock.Reading{Wall: w.now}
}
func (*world) After(time.Duration) <-chan time.Time { return time.After(time.Millisecond) }
func (*world) Changed() <-chan struct{}             { return nil }

func (w *world) Events(_ context.Context, q roster.Search) ([]roster.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events[min(q.After, uint64(len(w.events))):]), nil
}

func (w *world) LastEvent(context.Context) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.events)), nil
}

func (w *world) Requests(context.Context, bool, int) ([]roster.Request, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return []roster.Request{w.request}, nil
}

func (w *world) Request(context.Context, string) (roster.Request, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.request, nil
}

func (w *world) Decisions(context.Context, string) ([]roster.Decision, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []roster.Decision
	for _, v := range w.events {
		if v.Entry.Kind == ledger.Decision {
			all = append(all, roster.Decision{What: v.Entry.Step, Person: v.Entry.Person, Text: v.Entry.Text})
		}
	}
	return all, nil
}

func (w *world) Forwarded(_ context.Context, target string) (uint64, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.cursors[target]
	return n, ok, nil
}

func (w *world) KeepForwarded(_ context.Context, target string, upTo uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cursors[target] = upTo
	return nil
}

// Alone lets one do what has a name.
func (w *world) Alone(ctx context.Context, name string, f func(context.Context) error) (bool, error) {
	if _, busy := w.turns.LoadOrStore(name, true); busy {
		return false, nil
	}
	defer w.turns.Delete(name)
	return true, f(ctx)
}

func (w *world) happen(e ledger.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.At.IsZero() {
		e.At = w.now
	}
	w.events = append(w.events, roster.Event{ID: uint64(len(w.events) + 1), Kind: e.Kind.String(), Host: "db1", Entry: e})
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// receiver is somebody's webhook; it answers no as often as told.
type receiver struct {
	*httptest.Server
	refuse int

	mu    sync.Mutex // guards what follows
	calls []call
}

type call struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T, refuse int) *receiver {
	t.Helper()
	r := &receiver{refuse: refuse}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.refuse--; r.refuse >= 0 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		r.calls = append(r.calls, call{q.Header, b})
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// turn has the target look once, as often as it takes to succeed.
func (w *world) turn(t *testing.T, target Target) {
	t.Helper()
	n, err := New("https://curfew.example:7443", []Target{target}, w, w, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err = n.turn(t.Context(), n.lines[0]); err == nil {
			return
		}
		if strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("an address is told: %v", err)
		}
	}
	t.Fatal(err)
}

// Who is to approve is told at once that a request stands on an earlier proof.
func TestARequestOnAnEarlierProofIsToldAsSuch(t *testing.T) {
	const told = "it has no proof of its own, but an earlier one"
	for _, p := range []*roster.Proof{nil, {Factor: "passkey", For: "request"}} {
		w, r := newWorld(), newReceiver(t, 0)
		w.request.Proof = p
		target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL+"\n")}
		w.turn(t, target)
		w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "asked", Person: "ana"})
		w.turn(t, target)
		if all := r.all(); len(all) != 1 || bytes.Contains(all[0].body, []byte(told)) != (p != nil) {
			t.Errorf("with %v: %v", p, all)
		}
	}
}

func TestWhatIsNewIsToldOnceThoughTheReceiverFails(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 3)
	w.request.Doubts = []roster.Doubt{{If: "risk.first_time", Because: "ana was never granted this role before"}}
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL+"\n")}
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "denied", Person: "ben"})
	w.turn(t, target) // what was before is not told
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "asked", Person: "ana"})
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: roster.InPlaceStep, Person: "eve", Text: "may approve in place of cy"})
	w.happen(ledger.Entry{Kind: ledger.Admin, Step: roster.LentStep, Person: "cy", Object: "eve", Text: "eve may approve in place of cy, from 1 to 2: skiing"})
	w.happen(ledger.Entry{Kind: ledger.Admin, Person: "ada", Text: "added zoe, a person"})
	w.happen(ledger.Entry{Kind: ledger.Exec, Text: "x"})
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "approved", Person: "ben", Text: "go"})
	w.turn(t, target)
	w.turn(t, target)
	var texts []string
	for _, c := range r.all() {
		var m struct{ Text string }
		if err := json.Unmarshal(c.body, &m); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, m.Text)
	}
	want := []string{
		"ana asks for ops on db1 for 1h0m0s: disk &lt;!channel&gt; full &amp;; more have to approve, because ana was never granted this role before\nhttps://curfew.example:7443/requests/r-1",
		"eve may approve in place of cy: ana's request for ops on db1\nhttps://curfew.example:7443/requests/r-1",
		"eve may approve in place of cy, from 1 to 2: skiing",
		"ana's request for ops on db1 was approved by ben: go\nhttps://curfew.example:7443/requests/r-1",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q", texts)
	}
}

func TestAWebhookIsSigned(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 0)
	key := "a key of some thirty characters"
	target := Target{Name: "hook", Form: FormWebhook, ToFile: file(t, r.URL), KeyFile: file(t, key), About: []string{AboutAlerts}}
	w.turn(t, target)
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "asked", Person: "ana"})
	w.happen(ledger.Entry{Kind: ledger.Drift, Text: "sudo rule was changed"})
	w.turn(t, target)
	calls := r.all()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	c := calls[0]
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(c.header.Get("Webhook-Id") + "." + c.header.Get("Webhook-Timestamp") + "." + string(c.body)))
	if got := c.header.Get("Webhook-Signature"); got != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %q", got)
	}
	var m Message
	if err := json.Unmarshal(c.body, &m); err != nil || m.Host != "db1" || m.About != AboutAlerts || !strings.Contains(m.Text, "sudo rule was changed") {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAnEndIsWarnedOfTwiceAlsoOverARestart(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 0)
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL)}
	w.request.State, w.request.Grant = "issued", &grant.Grant{ID: "g-1", NotBefore: noon, NotAfter: noon.Add(20 * time.Minute)}
	for range 21 {
		w.turn(t, target) // each time another notifier
		w.pass(time.Minute)
	}
	var texts []string
	for _, c := range r.all() {
		texts = append(texts, string(c.body))
	}
	if len(texts) != 2 || !strings.Contains(texts[0], "ends in 15 minutes") || !strings.Contains(texts[1], "ends in 5 minutes") {
		t.Errorf("told %q", texts)
	}
}

func TestOldNewsIsToldToNobody(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 1)
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL)}
	w.turn(t, target)
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "denied", Person: "ben"})
	w.pass(2 * time.Hour)
	w.happen(ledger.Entry{Kind: ledger.Drift, At: noon.Add(-48 * time.Hour), Text: "new, by a host whose clock is behind"})
	w.turn(t, target)
	if calls := r.all(); len(calls) != 1 || !strings.Contains(string(calls[0].body), "new") {
		t.Errorf("told %v", calls)
	}
}

// mailbox is an SMTP server (RFC 5321) that takes one message.
func mailbox(t *testing.T) (address string, message <-chan string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan string, 1)
	go func() { // ends with its listener
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		say := func(s string) { _, _ = io.WriteString(c, s+"\r\n") }
		say("220 mail.example")
		var text strings.Builder
		data := false
		for in := bufio.NewScanner(c); in.Scan(); {
			line := in.Text()
			switch {
			case data && line == ".":
				data = false
				got <- text.String()
				say("250 taken")
			case data:
				text.WriteString(line + "\n")
			case strings.HasPrefix(line, "DATA"):
				data = true
				say("354 go on")
			case strings.HasPrefix(line, "QUIT"):
				say("221 bye")
				return
			default:
				say("250 yes")
			}
		}
	}()
	return l.Addr().String(), got
}

func TestMailIsSent(t *testing.T) {
	w := newWorld()
	address, message := mailbox(t)
	target := Target{Name: "mail", Form: FormShoutrrr, ToFile: file(t, "smtp://"+address+"/?from=curfew@example.org&to=oncall@example.org&auth=None&encryption=None&usestarttls=no")}
	w.turn(t, target)
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "asked", Person: "ana"})
	w.turn(t, target)
	if got := <-message; !strings.Contains(got, "ana asks for ops on db1") || !strings.Contains(got, "/requests/r-1") {
		t.Errorf("mail %q", got)
	}
}

func TestTargetsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		target Target
		want   string
	}{
		"a form that is none":          {Target{Name: "a", Form: "fax", ToFile: "/x"}, "form: write slack"},
		"a name in capitals":           {Target{Name: "A", Form: FormSlack, ToFile: "/x"}, "a name of its own"},
		"an address in the open":       {Target{Name: "a", Form: FormSlack, ToFile: "https://hooks.example/secret"}, "to_file: write the absolute path"},
		"a webhook without a key":      {Target{Name: "a", Form: FormWebhook, ToFile: "/x"}, "key_file: a webhook has one"},
		"a key that nobody would use":  {Target{Name: "a", Form: FormSlack, ToFile: "/x", KeyFile: "/y"}, "nothing else has"},
		"a subject that there is none": {Target{Name: "a", Form: FormSlack, ToFile: "/x", About: []string{"weather"}}, "about: write requests or alerts"},
	} {
		if err := Check([]Target{c.target}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check([]Target{{Name: "a", Form: FormSlack, ToFile: "/x", About: []string{AboutRequests}}}); err != nil {
		t.Error(err)
	}
	for name, content := range map[string]string{"no URL": "token-of-mine", "another scheme": "ftp://x", "nothing": ""} {
		_, err := New("", []Target{{Name: "a", Form: FormSlack, ToFile: file(t, content)}}, newWorld(), newWorld(), slog.New(slog.DiscardHandler))
		if err == nil || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two servers of one database tell what is new once between them, and one goes
// on if the other ends.
func TestTwoServersTellOnce(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 0)
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL)}
	w.turn(t, target)
	run := func() (stop func()) {
		n, err := New("https://curfew.example:7443", []Target{target}, w, w, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	one, other := run(), run()
	defer other()
	told := func(want int) { // and kept: a server that ends in between leaves the other to tell it again
		t.Helper()
		kept := func() uint64 { upTo, _, _ := w.Forwarded(t.Context(), "notify/chat"); return upTo }
		for limit := time.After(time.Minute); len(r.all()) < want || kept() < uint64(want); {
			select {
			case <-limit:
				t.Fatalf("%d of %d were told", len(r.all()), want)
			case <-time.After(time.Millisecond):
			}
		}
		if got := len(r.all()); got != want {
			t.Fatalf("told %d times, and not %d", got, want)
		}
	}
	for i := range 200 {
		w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "approved", Person: "ben"})
		told(i + 1)
	}
	one()
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "approved", Person: "ben"})
	told(201)
}

// Of many hosts a message names some, and says how many there are besides.
func TestAMessageNamesFewOfManyHosts(t *testing.T) {
	w, r := newWorld(), newReceiver(t, 0)
	for i := range 500 {
		w.request.Hosts = append(w.request.Hosts, fmt.Sprintf("n%03d", i))
	}
	target := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL+"\n")}
	w.turn(t, target)
	w.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: "asked", Person: "ana"})
	w.turn(t, target)
	if all := r.all(); len(all) != 1 || !bytes.Contains(all[0].body, fmt.Appendf(nil, " and %d more for ", len(w.request.Hosts)-8)) {
		t.Errorf("%s", all)
	}
}
