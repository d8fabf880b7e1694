package witness

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type stopped struct{}

func (stopped) Now() clock.Reading                   { return clock.Reading{Wall: noon} }
func (stopped) After(time.Duration) <-chan time.Time { return nil }

// history is a log in memory: what it says, and the hashes of that.
type history struct {
	private ed25519.PrivateKey
	key     ledger.Key
	hashes  []tlog.Hash
	size    int64
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHistory(t *testing.T, fleet string, seed byte, said ...string) *history {
	t.Helper()
	h := &history{private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
	var err error
	h.key, err = ledger.NewKey(fleet, h.private.Public().(ed25519.PublicKey))
	must(t, err)
	for _, s := range said {
		more, err := tlog.StoredHashes(h.size, []byte(s), h)
		must(t, err)
		h.hashes, h.size = append(h.hashes, more...), h.size+1
	}
	return h
}

func (h *history) ReadHashes(places []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(places))
	for i, p := range places {
		all[i] = h.hashes[p]
	}
	return all, nil
}

func (h *history) Name() string                     { return ledger.Origin(h.key.Fleet) }
func (h *history) KeyHash() uint32                  { return h.key.KeyHash() }
func (h *history) Sign(text []byte) ([]byte, error) { return ed25519.Sign(h.private, text), nil }

func (h *history) note(t *testing.T, size int64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(size, h)
	must(t, err)
	c := ledger.Checkpoint{Fleet: h.key.Fleet, Tree: ledger.Tree{Size: uint64(size), Root: root}}
	b, err := note.Sign(&note.Note{Text: c.Text()}, h)
	must(t, err)
	return b
}

// offer is what the log sends: that of a size goes on from an old one.
func (h *history) offer(t *testing.T, old, size int64) ledger.Offer {
	t.Helper()
	o := ledger.Offer{Old: uint64(old), Note: h.note(t, size)}
	if old > 0 && old < size {
		var err error
		o.Proof, err = tlog.ProveTree(size, old, h)
		must(t, err)
	}
	return o
}

// bench is a witness, and where it answers.
type bench struct {
	dir string
	key ledger.Witness
	*Witness
	url string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: filepath.Join(t.TempDir(), "w")}
	key, err := Init(b.dir, "witness.example/w1")
	must(t, err)
	b.key, err = ledger.ParseWitness(key)
	must(t, err)
	b.open(t)
	return b
}

func (b *bench) open(t *testing.T) {
	t.Helper()
	var err error
	b.Witness, err = Open(b.dir, []ledger.Key{newHistory(t, "lab", 1).key}, stopped{})
	must(t, err)
	s := httptest.NewServer(b.Handler(slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	b.url = s.URL
}

func (b *bench) post(t *testing.T, body []byte) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/add-checkpoint", bytes.NewReader(body))
	must(t, err)
	r, err := http.DefaultClient.Do(q)
	must(t, err)
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	must(t, err)
	if size := r.Header.Get("Content-Type") == "text/x.tlog.size"; size != (r.StatusCode == http.StatusConflict) {
		t.Errorf("%d has a size: %v", r.StatusCode, size)
	}
	return r.StatusCode, string(answer)
}

// cosigned checks that the witness cosigns the offer.
func (b *bench) cosigned(t *testing.T, o ledger.Offer) {
	t.Helper()
	status, line := b.post(t, o.Bytes())
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, line)
	}
	if at, err := b.key.Cosigned(append(bytes.Clone(o.Note), line...)); err != nil || !at.Equal(noon) {
		t.Fatalf("%v, %v: %s", at, err, line)
	}
}

// told is a log of seven entries, and one that is the same up to the fourth.
func told(t *testing.T) (real, forked *history) {
	t.Helper()
	return newHistory(t, "lab", 1, "a", "b", "c", "d", "e", "f", "g"), newHistory(t, "lab", 1, "a", "b", "c", "d", "x", "f", "g", "h")
}

func TestALogThatGoesOnIsCosigned(t *testing.T) {
	b := newBench(t)
	l, _ := told(t)
	b.cosigned(t, l.offer(t, 0, 3))
	b.cosigned(t, l.offer(t, 3, 3)) // again: it may not have heard
	b.cosigned(t, l.offer(t, 3, 5))
	must(t, b.Close())
	b.open(t) // what it was is on its disk
	b.cosigned(t, l.offer(t, 5, 7))
}

func TestNoSecondHistoryIsCosigned(t *testing.T) {
	l, forked := told(t)
	stranger := newHistory(t, "other", 1, "a")
	wrong := newHistory(t, "lab", 2, "a", "b", "c", "d", "e", "f", "g")
	cut := l.offer(t, 5, 7)
	cut.Proof = cut.Proof[1:]
	claims := forked.offer(t, 5, 7)
	claims.Proof = l.offer(t, 5, 7).Proof
	for _, c := range []struct {
		name   string
		offer  []byte
		status int
		size   string
		kept   int // forks that the witness has evidence of
	}{
		{"another history that is longer", forked.offer(t, 5, 8).Bytes(), 422, "", 0},
		{"with the proof of the one that it knows", claims.Bytes(), 422, "", 0},
		{"another history of the same size", forked.offer(t, 5, 5).Bytes(), 409, "5\n", 1},
		{"one that was set back", l.offer(t, 3, 4).Bytes(), 409, "5\n", 0},
		{"set back to nothing", l.offer(t, 0, 0).Bytes(), 409, "5\n", 0},
		{"what it cosigned before, again", l.offer(t, 0, 5).Bytes(), 409, "5\n", 0},
		{"a log that claims that nothing was cosigned", forked.offer(t, 0, 8).Bytes(), 409, "5\n", 0},
		{"a proof that is cut", cut.Bytes(), 422, "", 0},
		{"fewer entries than it is to go on from", l.offer(t, 5, 4).Bytes(), 400, "", 0},
		{"the key of another log", wrong.offer(t, 5, 7).Bytes(), 403, "", 0},
		{"nobody's signature", []byte(strings.Split(string(l.offer(t, 5, 7).Bytes()), "\u2014")[0]), 403, "", 0},
		{"a log that it does not watch", stranger.offer(t, 0, 1).Bytes(), 404, "", 0},
		{"no offer", []byte("old\n"), 400, "", 0},
		{"too much", bytes.Repeat([]byte("a"), maxOffer+1), 400, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.cosigned(t, l.offer(t, 0, 5))
			status, body := b.post(t, c.offer)
			if status != c.status || c.size != "" && body != c.size || strings.Contains(body, "\u2014") {
				t.Errorf("%d: %s", status, body)
			}
			if all, err := filepath.Glob(filepath.Join(b.dir, "fork-*")); err != nil || len(all) != c.kept {
				t.Errorf("evidence: %v, %v", all, err)
			}
			b.cosigned(t, l.offer(t, 5, 7)) // the log that goes on is none the worse
		})
	}
}

// A folder that is not what a witness left there is no beginning.
func TestAWitnessThatLostItsMemoryDoesNotRun(t *testing.T) {
	l, _ := told(t)
	for _, c := range []struct {
		name  string
		spoil func(file string) error
	}{
		{"the file is empty", func(file string) error { return os.WriteFile(file, nil, 0o600) }},
		{"a byte is another", func(file string) error {
			b, err := os.ReadFile(file)
			b[12] ^= 1
			return errors.Join(err, os.WriteFile(file, b, 0o600))
		}},
		{"it cannot be read", func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }},
	} {
		b := newBench(t)
		b.cosigned(t, l.offer(t, 0, 5))
		must(t, b.Close())
		must(t, c.spoil(b.file(ledger.Origin("lab"))))
		if _, err := Open(b.dir, []ledger.Key{l.key}, stopped{}); err == nil {
			t.Errorf("%s: it runs", c.name)
		}
	}
}

func TestTwoWitnessesDoNotShareAFolder(t *testing.T) {
	b := newBench(t)
	if _, err := Open(b.dir, nil, stopped{}); err == nil || !strings.Contains(err.Error(), "another witness runs") {
		t.Error(err)
	}
	if _, err := Init(b.dir, "w2"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was written over: %v", err)
	}
	must(t, b.Close())
	k := newHistory(t, "lab", 1).key
	if _, err := Open(b.dir, []ledger.Key{k, newHistory(t, "lab", 2).key}, stopped{}); err == nil || !strings.Contains(err.Error(), "two keys of one log") {
		t.Error(err)
	}
	if _, err := Open(t.TempDir(), nil, stopped{}); err == nil || !strings.Contains(err.Error(), "witness init") {
		t.Error(err)
	}
}

// Offers that come at once are looked at one after the other.
func TestOfTwoHistoriesAtOnceOneIsCosigned(t *testing.T) {
	b := newBench(t)
	l, forked := told(t)
	b.cosigned(t, l.offer(t, 0, 4))
	const each = 20
	answers := make(chan error)
	for i := range 2 * each {
		o := []ledger.Offer{l.offer(t, 4, 7), forked.offer(t, 4, 7)}[i%2]
		go func() {
			_, _, err := b.cosign(o, ledger.Origin("lab"))
			answers <- err
		}()
	}
	cosigned := 0
	for range 2 * each {
		switch err := <-answers; {
		case err == nil:
			cosigned++
		case !errors.Is(err, errSize):
			t.Error(err)
		}
	}
	if cosigned != 1 {
		t.Errorf("%d were", cosigned)
	}
}
