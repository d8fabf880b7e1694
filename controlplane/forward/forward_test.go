package forward

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	logsservice "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 123456000, time.UTC)

// hasty is a clock whose waits are a thousandth of what was asked for.
type hasty struct{ clock.System }

func (hasty) After(d time.Duration) <-chan time.Time { return time.After(d / 1000) }

// shelf is a store in memory.
type shelf struct {
	mu      sync.Mutex // guards what follows
	events  []roster.Event
	upTo    map[string]uint64
	changed chan struct{}
}

func newShelf(n int) *shelf {
	s := &shelf{upTo: map[string]uint64{}, changed: make(chan struct{})}
	s.add(n)
	return s
}

func (s *shelf) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		id := uint64(len(s.events)) + 1
		s.events = append(s.events, roster.Event{ID: id, Kind: "exec", Host: "db1", Role: "db-admin", Entry: ledger.Entry{
			Kind: ledger.Exec, At: noon, Host: "db1", Grant: "g-a", Person: "ana", Approvers: []string{"ben"}, Session: 9, SessionSeq: id,
			Process: &ledger.Process{PID: 7, Path: "/usr/bin/systemctl", Comm: "systemctl", Cwd: "/", Argv: []string{"systemctl", "restart", strconv.FormatUint(id, 10)}},
		}})
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shelf) Events(_ context.Context, q roster.Search) ([]roster.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := min(q.After, uint64(len(s.events)))
	return slices.Clone(s.events[from:min(from+uint64(q.Limit), uint64(len(s.events)))]), nil
}

func (s *shelf) LastEvent(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.events)), nil
}

func (s *shelf) Forwarded(_ context.Context, target string) (uint64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.upTo[target]
	return n, ok, nil
}

func (s *shelf) KeepForwarded(_ context.Context, target string, upTo uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upTo[target] = upTo
	return nil
}

func (s *shelf) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// forward runs a forwarder until the target has come to the end, and returns
// what its log says.
func (s *shelf) forward(t *testing.T, target Target) string {
	t.Helper()
	target.Name = "siem"
	if err := Check([]Target{target}); err != nil {
		t.Fatal(err)
	}
	log := &safe{}
	f, err := New("example", []Target{target}, s, hasty{}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	last, _ := s.LastEvent(ctx)
	for upTo, _, _ := s.Forwarded(ctx, "siem"); upTo < last && ctx.Err() == nil; upTo, _, _ = s.Forwarded(ctx, "siem") {
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("it is %d behind: %s", f.Behind(last)["siem"], log)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return log.String()
}

// safe is a buffer for several goroutines.
type safe struct {
	mu sync.Mutex // guards what follows
	b  strings.Builder
}

func (s *safe) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// got is what receivers took, by the number that the last argument holds.
type got struct {
	mu  sync.Mutex // guards what follows
	all []int
}

func (g *got) take(t *testing.T, number string) {
	t.Helper()
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Error(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, n)
}

// inOrder fails unless 1..n arrived, each for the first time in order.
func (g *got) inOrder(t *testing.T, n int) (doubles int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	next := 1
	for _, v := range g.all {
		switch {
		case v == next:
			next++
		case v > next:
			t.Fatalf("%d came before %d", v, next)
		default:
			doubles++
		}
	}
	if next != n+1 {
		t.Fatalf("only %d of %d arrived", next-1, n)
	}
	return doubles
}

func lastWord(s string) string { return s[strings.LastIndexByte(s, ' ')+1:] }

func TestOCSFFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "curfew.jsonl")
	// What a crash left of a line.
	if err := os.WriteFile(file, []byte(`{"class_uid":1007,"mess`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newShelf(700)
	s.forward(t, Target{Form: FormOCSF, To: "file://" + file})
	s.add(10)
	s.forward(t, Target{Form: FormOCSF, To: "file://" + file})
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var g got
	lines := bufio.NewScanner(f)
	for first := true; lines.Scan(); first = false {
		if !first {
			g.takeJSON(t, lines.Bytes())
		}
	}
	if twice := g.inOrder(t, 710); twice > 0 {
		t.Errorf("%d came twice", twice)
	}
}

// takeJSON reads one event and looks at what the schema requires.
func (g *got) takeJSON(t *testing.T, line []byte) {
	t.Helper()
	var e struct {
		ClassUID    int `json:"class_uid"`
		CategoryUID int `json:"category_uid"`
		ActivityID  int `json:"activity_id"`
		TypeUID     int `json:"type_uid"`
		SeverityID  int `json:"severity_id"`
		Time        int64
		Metadata    struct {
			Version string
			Product struct{ Name string }
		}
		Actor   struct{ User struct{ Name string } }
		Device  struct{ Hostname string }
		Process struct {
			CmdLine string `json:"cmd_line"`
		}
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Errorf("%v: %s", err, line)
		return
	}
	if e.ClassUID != 1007 || e.CategoryUID != 1 || e.ActivityID != 1 || e.TypeUID != 100701 || e.SeverityID != 1 || e.Time != noon.UnixMilli() ||
		e.Metadata.Version == "" || e.Metadata.Product.Name != "Curfew" || e.Actor.User.Name != "ana" || e.Device.Hostname != "db1" {
		t.Errorf("%s", line)
	}
	g.take(t, lastWord(e.Process.CmdLine))
}

// A server that says no, or breaks off, gets the same again.
func TestHTTPReceivers(t *testing.T) {
	const n = 1100
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		form string
		take func(g *got, body []byte) []byte
	}{
		{FormOCSF, func(g *got, body []byte) []byte {
			for line := range strings.Lines(string(body)) {
				g.takeJSON(t, []byte(line))
			}
			return nil
		}},
		{FormOTLP, func(g *got, body []byte) []byte {
			var q logsservice.ExportLogsServiceRequest
			if err := proto.Unmarshal(body, &q); err != nil {
				t.Error(err)
			}
			for _, r := range q.ResourceLogs[0].ScopeLogs[0].LogRecords {
				g.take(t, lastWord(r.Body.GetStringValue()))
			}
			b, err := proto.Marshal(&logsservice.ExportLogsServiceResponse{})
			if err != nil {
				t.Error(err)
			}
			return b
		}},
	} {
		t.Run(c.form, func(t *testing.T) {
			var g got
			calls := 0
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls++ // calls come one after the other
				if r.Header.Get("Authorization") != "Bearer s3cret" {
					t.Error("no token")
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				switch calls % 4 {
				case 1:
					http.Error(w, "full", http.StatusServiceUnavailable)
				case 2:
					c.take(&g, body) // it has them, and nobody hears of it
					panic(http.ErrAbortHandler)
				case 3:
					http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
				default:
					_, _ = w.Write(c.take(&g, body))
				}
			}))
			defer server.Close()
			ca := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			newShelf(n).forward(t, Target{Form: c.form, To: server.URL + "/v1/logs", CAFile: ca, TokenFile: token})
			if twice := g.inOrder(t, n); twice != n {
				t.Errorf("%d came twice, and all were to", twice)
			}
		})
	}
}

func TestWhatACollectorRejectsForGoodIsTold(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b, _ := proto.Marshal(&logsservice.ExportLogsServiceResponse{
			PartialSuccess: &logsservice.ExportLogsPartialSuccess{RejectedLogRecords: 2, ErrorMessage: "too old"},
		})
		_, _ = w.Write(b)
	}))
	defer server.Close()
	log := newShelf(3).forward(t, Target{Form: FormOTLP, To: server.URL})
	if !strings.Contains(log, "rejected=2") || !strings.Contains(log, "too old") {
		t.Error(log)
	}
}
