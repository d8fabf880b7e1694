package cosign

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	watcher "curfew.internal/witness"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a log in memory, what is known of its witnesses, and a clock.
type world struct {
	mu      sync.Mutex
	now     time.Time
	private ed25519.PrivateKey
	key     ledger.Key
	hashes  []tlog.Hash
	size    int64
	known   map[string]roster.Witness
	told    []string
	alerts  bytes.Buffer
	*Cosigner
}

func newWorld(t *testing.T, targets ...Target) *world {
	t.Helper()
	w := &world{
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), private: ed25519.NewKeyFromSeed(make([]byte, 32)), known: map[string]roster.Witness{},
	}
	var err error
	w.key, err = ledger.NewKey("lab", w.private.Public().(ed25519.PublicKey))
	must(t, err)
	must(t, Check(targets))
	w.Cosigner, err = New(targets, w, w, w, slog.New(slog.NewTextHandler(&w.alerts, nil)))
	must(t, err)
	return w
}

func (w *world) Now() clock.Reading                   { return clock.Reading{Wall: w.now} }
func (w *world) After(time.Duration) <-chan time.Time { return nil }
func (w *world) Name() string                         { return ledger.Origin("lab") }
func (w *world) KeyHash() uint32                      { return w.key.KeyHash() }
func (w *world) Sign(text []byte) ([]byte, error)     { return ed25519.Sign(w.private, text), nil }

func (w *world) ReadHashes(places []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(places))
	for i, p := range places {
		all[i] = w.hashes[p]
	}
	return all, nil
}

// grow adds what is said to the log.
func (w *world) grow(t *testing.T, said ...string) {
	t.Helper()
	for _, s := range said {
		more, err := tlog.StoredHashes(w.size, []byte(s), w)
		must(t, err)
		w.hashes, w.size = append(w.hashes, more...), w.size+1
	}
}

// setBack is an older copy of the log, with what was known then.
func (w *world) setBack(t *testing.T, said ...string) {
	t.Helper()
	w.hashes, w.size, w.known = nil, 0, map[string]roster.Witness{}
	w.grow(t, said...)
}

func (w *world) Checkpoint(context.Context) (ledger.Checkpoint, []byte, error) {
	root, err := tlog.TreeHash(w.size, w)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	c := ledger.Checkpoint{Fleet: "lab", Tree: ledger.Tree{Size: uint64(w.size), Root: root}}
	b, err := note.Sign(&note.Note{Text: c.Text()}, w)
	return c, b, err
}

func (w *world) Growth(_ context.Context, from, to uint64) (tlog.TreeProof, error) {
	if from == 0 || from == to {
		return nil, nil
	}
	return tlog.ProveTree(int64(to), int64(from), w)
}

func (w *world) Witness(_ context.Context, key string) (roster.Witness, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.known[key]
	v.Key = key
	return v, nil
}

func (w *world) UpdateWitness(_ context.Context, key string, _ time.Time, f func(roster.Witness) (roster.Witness, string, string)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, step, text := f(w.known[key])
	w.known[key] = v
	if step != "" {
		w.told = append(w.told, step+": "+text)
	}
	return nil
}

// place is a witness, and a door in front of it that can be shut.
type place struct {
	Target
	dir   string
	asked int
	shut  bool
	at    func(http.ResponseWriter, *http.Request) // in place of its answer
}

func newPlace(t *testing.T, name string) *place {
	t.Helper()
	p := &place{dir: filepath.Join(t.TempDir(), "w")}
	key, err := watcher.Init(p.dir, name)
	must(t, err)
	log, err := ledger.NewKey("lab", ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
	must(t, err)
	w, err := watcher.Open(p.dir, []ledger.Key{log}, clock.System{})
	must(t, err)
	h := w.Handler(slog.New(slog.DiscardHandler))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p.asked++
		if p.at != nil {
			p.at(rw, r)
			return
		}
		if p.shut {
			http.Error(rw, "shut\x1b[2J", http.StatusBadGateway)
			return
		}
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	p.Target = Target{Key: key, URL: s.URL + "/"}
	return p
}

// by checks which of the places cosigned the newest checkpoint.
func (w *world) by(t *testing.T, want ...*place) {
	t.Helper()
	c, signed, err := w.Cosigned(t.Context())
	must(t, err)
	if opened, err := ledger.OpenCheckpoint(signed, w.key); err != nil || opened != c || c.Size != uint64(w.size) {
		t.Fatalf("%+v, %v", opened, err)
	}
	if shown, err := w.Published(t.Context()); err != nil || !bytes.Equal(shown, signed) {
		t.Errorf("shown is %s, %v", shown, err)
	}
	if n := strings.Count(string(signed), "\u2014"); n != 1+len(want) {
		t.Errorf("%d signatures: %s", n, signed)
	}
	for _, p := range want {
		k, err := ledger.ParseWitness(p.Key)
		must(t, err)
		if _, err := k.Cosigned(signed); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if v := w.known[p.Key]; v.Size != c.Size || !v.Since.IsZero() || v.At.IsZero() {
			t.Errorf("known of %s: %+v", k.Name, v)
		}
	}
}

func (w *world) tells(t *testing.T, want ...string) {
	t.Helper()
	if len(w.told) != len(want) {
		t.Fatalf("told %q, want %q", w.told, want)
	}
	for i, s := range want {
		if !strings.HasPrefix(w.told[i], s) {
			t.Errorf("told %q, want %q", w.told[i], s)
		}
	}
}

func TestALogIsCosignedAsItGrows(t *testing.T) {
	a, b := newPlace(t, "a"), newPlace(t, "b")
	w := newWorld(t, a.Target, b.Target)
	w.grow(t, "1", "2")
	w.by(t, a, b)
	w.by(t, a, b)
	if a.asked != 1 {
		t.Errorf("asked %d times about the same", a.asked)
	}
	w.grow(t, "3", "4", "5")
	w.by(t, a, b)
	w.known = map[string]roster.Witness{} // it says itself from where to go on
	w.grow(t, "6")
	w.by(t, a, b)
	w.tells(t)
}

func TestALogWithoutWitnessesIsTheLog(t *testing.T) {
	w := newWorld(t)
	w.grow(t, "1")
	w.by(t)
	must(t, w.Run(t.Context()))
}

// The log goes on, and it shows since when a witness does not.
func TestAWitnessThatIsDown(t *testing.T) {
	a, b := newPlace(t, "a"), newPlace(t, "b")
	w := newWorld(t, a.Target, b.Target)
	w.grow(t, "1", "2")
	w.by(t, a, b)
	a.shut = true
	since := w.now
	for i := range 5 {
		w.grow(t, fmt.Sprint("while it is down ", i))
		w.by(t, b)
		w.now = w.now.Add(patience / 2)
	}
	w.tells(t, "silent: does not cosign since 2026-03-01T12:00:00Z: it answers 502: shut [2J")
	all, err := w.Witnesses(t.Context())
	if err != nil || !all[0].Since.Equal(since) || all[0].Size != 2 || all[0].Refuses || !all[1].Since.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if s := w.alerts.String(); strings.Count(s, "alert: a witness does not cosign the log") != 1 || !strings.Contains(s, "witness=a") {
		t.Errorf("%s", s)
	}
	a.shut = false
	w.by(t, a, b)
	w.tells(t, "silent", "cosigns: the log of 7 entries, again; it had not since 2026-03-01T12:00:00Z")
}

func TestALogThatIsNotWhatItWas(t *testing.T) {
	for _, c := range []struct {
		name string
		log  []string
		want string
	}{
		{"it was set back", []string{"1", "2"}, "it cosigned 4 entries, and there are 2"},
		{"it was set back, and went on", []string{"1", "2", "x", "y", "z"}, "its first 4 entries are others now"},
		{"an entry was changed", []string{"1", "x", "3", "4"}, "it cosigned another state of 4 entries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newPlace(t, "a")
			w := newWorld(t, a.Target)
			w.grow(t, "1", "2", "3", "4")
			w.by(t, a)
			w.setBack(t, c.log...)
			for range 3 {
				w.by(t)
				w.now = w.now.Add(2 * patience)
			}
			w.tells(t, "refuses: does not cosign since 2026-03-01T12:00:00Z: the log is not what it cosigned: "+c.want)
			if s := w.alerts.String(); strings.Count(s, "alert: ") != 1 {
				t.Errorf("%s", s)
			}
			if v := w.known[a.Key]; !v.Refuses || v.Size != 0 {
				t.Errorf("%+v", v)
			}
		})
	}
}

// What is shown to everybody does not wait for a witness that does not answer.
func TestTheLogIsShownWhileAWitnessIsAsked(t *testing.T) {
	a := newPlace(t, "a")
	w := newWorld(t, a.Target)
	w.grow(t, "1")
	w.by(t, a)
	was, err := w.Published(t.Context())
	must(t, err)
	w.grow(t, "2")
	asked, answer := make(chan struct{}), make(chan struct{})
	a.at = func(http.ResponseWriter, *http.Request) { close(asked); <-answer }
	done := make(chan error)
	go func() { _, _, err := w.Cosigned(t.Context()); done <- err }()
	<-asked
	if shown, err := w.Published(t.Context()); err != nil || !bytes.Equal(shown, was) {
		t.Errorf("shown is %s, %v", shown, err)
	}
	close(answer)
	must(t, <-done)
}

// One that takes what it is asked and does not answer is waited for once: it
// would have every export wait. It is asked again beside that.
func TestAWitnessThatHangsIsWaitedForOnce(t *testing.T) {
	a, b := newPlace(t, "a"), newPlace(t, "b")
	w := newWorld(t, a.Target, b.Target)
	asked := make(chan struct{}, 1)
	b.at = func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		<-r.Context().Done()
	}
	w.grow(t, "1")
	w.by(t, a)
	<-asked
	w.grow(t, "2")
	w.by(t, a) // a second asking would leave its mark
	if len(asked) > 0 {
		t.Error("it is asked again by who wants to export")
	}
	if since := w.known[b.Key].Since; since.IsZero() {
		t.Error("nobody knows that it does not cosign")
	}
	b.at = nil
	must(t, w.again(t.Context()))
	w.grow(t, "3")
	w.by(t, a, b)
}

func TestAWitnessLeadsNowhereElse(t *testing.T) {
	a, inside := newPlace(t, "a"), newPlace(t, "inside")
	a.at = func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, inside.URL+"add-checkpoint", http.StatusTemporaryRedirect)
	}
	w := newWorld(t, a.Target)
	w.grow(t, "1")
	w.by(t)
	if inside.asked > 0 {
		t.Error("the server went where the witness sent it")
	}
}

func TestAKeyThatIsNotTheWitnesss(t *testing.T) {
	a, b := newPlace(t, "a"), newPlace(t, "a")
	w := newWorld(t, Target{Key: b.Key, URL: a.URL})
	w.grow(t, "1")
	w.by(t)
	w.now = w.now.Add(patience)
	w.by(t)
	w.tells(t, "silent: does not cosign since 2026-03-01T12:00:00Z: what it answers with is no cosignature by its key")
}

// Another server of the fleet may have had a witness cosign more than this one
// asks for.
func TestTwoServersOfOneLog(t *testing.T) {
	a := newPlace(t, "a")
	w := newWorld(t, a.Target)
	w.grow(t, "1", "2", "3")
	w.by(t, a)
	now, signed, err := w.Checkpoint(t.Context())
	must(t, err)
	w.grow(t, "4")
	w.by(t, a)
	line, err := w.one(t.Context(), w.of[0], now, signed)
	if err != nil || line != "" || w.known[a.Key].Size != 4 || !w.known[a.Key].Since.IsZero() {
		t.Errorf("%q, %v: %+v", line, err, w.known[a.Key])
	}
	w.tells(t)
}

func TestCheck(t *testing.T) {
	a := newPlace(t, "a")
	for _, c := range []struct {
		name string
		all  []Target
		want string
	}{
		{"it is right", []Target{a.Target}, ""},
		{"the same twice", []Target{a.Target, a.Target}, "another of the name a"},
		{"no key", []Target{{URL: a.URL}}, "no key of a witness"},
		{"no address", []Target{{Key: a.Key}}, "write it like https:"},
		{"in the clear over the network", []Target{{Key: a.Key, URL: "http://witness.example:7450"}}, "write https"},
		{"a password in it", []Target{{Key: a.Key, URL: "https://a:b@witness.example"}}, "write it like https:"},
	} {
		err := Check(c.all)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
