package keep

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

func openBox(t rapid.TB, c Config) *Outbox {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	o, err := openOutbox(c, true)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func entry(n uint64) ledger.Entry { return ledger.Entry{Kind: ledger.Exec, Session: n} }

// removed is an entry that may fill all the room there is.
func removed(n uint64) ledger.Entry { return ledger.Entry{Kind: ledger.Removed, Session: n} }

// all reads the outbox from the number on, and checks that numbers go on.
func all(t rapid.TB, o *Outbox, after uint64) []ledger.Entry {
	t.Helper()
	var found []ledger.Entry
	for {
		first, entries, err := o.Next(after, 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return found
		}
		if first != after+1 {
			t.Fatalf("record %d after %d", first, after)
		}
		for _, b := range entries {
			e, err := ledger.ParseEntry(b)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, e)
		}
		after += uint64(len(entries))
	}
}

// A moody disk takes what it likes.
type moody struct {
	file
	full *bool
	dice *rand.Rand
}

var errFull = errors.New("no space left")

func (m moody) Write(b []byte) (int, error) {
	if *m.full {
		n, _ := m.file.Write(b[:m.dice.IntN(len(b))])
		return n, errFull
	}
	return m.file.Write(b)
}

func (m moody) Sync() error {
	if m.dice.IntN(8) == 0 {
		return errors.New("bad sector")
	}
	return m.file.Sync()
}

func (m moody) Truncate(size int64) error {
	if m.dice.IntN(2) == 0 {
		return errors.New("read only")
	}
	return m.file.Truncate(size)
}

// Whatever the disk does and whenever the agent dies: what was said to be
// durable is there once, in order, and what is missing is said.
func TestOutboxKeepsItsWord(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		c := Config{Dir: dir, Host: "db1", Clock: &fixed{}, Memory: 200, Quota: 3000}
		full := false
		dice := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		create := func(dir *os.Root, name string) (file, error) {
			if full {
				return nil, errFull
			}
			f, err := createFile(dir, name)
			return moody{f, &full, dice}, err
		}
		o := openBox(rt, c)
		o.create = create
		var n, durable, acked, base uint64 // numbers given out, durable, acknowledged; entries before the first here
		check := func() {
			seen := base
			for _, e := range all(rt, o, acked) {
				if e.Kind == ledger.Gap {
					seen += e.Lost
					continue
				}
				if e.Session != seen+1 {
					rt.Fatalf("entry %d after %d, and no gap", e.Session, seen)
				}
				seen = e.Session
			}
			if seen < durable {
				rt.Fatalf("%d entries are durable, %d are there", durable, seen)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(rt, "n") {
					n++
					o.mu.Lock()
					o.put(removed(n))
					o.mu.Unlock()
				}
			},
			"write": func(*rapid.T) {
				if o.commit() == nil {
					durable = n
					if o.lost > 0 {
						rt.Fatal("written, and a gap is not")
					}
				}
			},
			"disk": func(rt *rapid.T) { full = rapid.Bool().Draw(rt, "full") },
			"acknowledge": func(rt *rapid.T) {
				entries := all(rt, o, acked)
				k := rapid.IntRange(0, len(entries)).Draw(rt, "k")
				for _, e := range entries[:k] {
					acked++
					if e.Kind == ledger.Removed {
						base = e.Session
					} else {
						base += e.Lost
					}
				}
				if err := o.Kept(acked, rapid.Bool().Draw(rt, "first")); err != nil {
					rt.Fatal(err)
				}
			},
			"kill": func(rt *rapid.T) {
				// What was only in memory is gone, and was not promised.
				name := o.Name()
				o = openBox(rt, c)
				o.create = create
				if o.Name() != name {
					rt.Fatal("another name")
				}
				n = base
				for _, e := range all(rt, o, acked) {
					if n++; e.Kind == ledger.Gap {
						n += e.Lost - 1
					}
				}
				if n < durable {
					rt.Fatalf("%d entries are durable, %d are there after a crash", durable, n)
				}
				durable = n
			},
			"": func(*rapid.T) { check() },
		})
	})
}

// Bytes that rot cost what they touch, and are said.
func TestOutboxSurvivesRot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		c := Config{Dir: dir, Host: "db1", Clock: &fixed{}}
		const n, parts = 60, 3
		for part := range uint64(parts) {
			o := openBox(rt, c)
			for i := range uint64(n / parts) {
				o.put(entry(part*n/parts + i + 1))
			}
			if err := o.commit(); err != nil {
				rt.Fatal(err)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "outbox", "*"+extension))
		if err != nil || len(files) != parts {
			rt.Fatal(files, err)
		}
		// The last file is left whole: its tail could not be told from one
		// that a crash tore.
		for range rapid.IntRange(1, 4).Draw(rt, "spots") {
			file := files[rapid.IntRange(0, parts-2).Draw(rt, "file")]
			b, err := os.ReadFile(file)
			if err != nil {
				rt.Fatal(err)
			}
			at := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
			for i := at; i < min(len(b), at+rapid.IntRange(1, 64).Draw(rt, "size")); i++ {
				b[i] = rapid.Byte().Draw(rt, "byte")
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				rt.Fatal(err)
			}
		}
		got := all(rt, openBox(rt, c), 0)
		if len(got) != n {
			rt.Fatalf("%d records, want %d", len(got), n)
		}
		for i, e := range got {
			if e.Kind == ledger.Gap && e.Lost == 1 || e.Kind == ledger.Exec && e.Session == uint64(i+1) {
				continue
			}
			rt.Fatalf("record %d is %v", i, e)
		}
	})
}

// run starts the writer, and returns what stops it.
func run(t *testing.T, o *Outbox) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() { _ = o.run(ctx) })
	for running := false; !running; runtime.Gosched() {
		o.mu.Lock()
		running = o.running
		o.mu.Unlock()
	}
	stop = sync.OnceFunc(func() { cancel(); g.Wait() })
	t.Cleanup(stop)
	return stop
}

func TestAppendSharesSyncs(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: clock.System{}})
	run(t, o)
	var g sync.WaitGroup
	for i := range 20 {
		g.Go(func() {
			for j := range 20 {
				if err := o.Append(entry(uint64(i*100+j)), entry(uint64(i*100+j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	if got := len(all(t, o, 0)); got != 800 {
		t.Errorf("%d entries, want 800", got)
	}
}

// A hung disk holds up nobody who enforces.
func TestAppendDoesNotHang(t *testing.T) {
	c := &ready{}
	o := openBox(t, Config{Dir: t.TempDir(), Clock: c})
	release := make(chan struct{})
	o.create = func(dir *os.Root, name string) (file, error) {
		<-release
		return createFile(dir, name)
	}
	stop := run(t, o)
	for range 3 {
		if err := o.Append(entry(1)); !errors.Is(err, ErrHeld) {
			t.Fatalf("got %v", err)
		}
	}
	close(release)
	stop()
	if got := len(all(t, o, 0)); got != 3 {
		t.Errorf("%d entries, want 3", got)
	}
}

// A ready clock does not wait.
type ready struct{ fixed }

func (ready) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

func TestAppendSaysWhatIsLost(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}, Host: "db1", Memory: 64})
	full := true
	o.create = func(dir *os.Root, name string) (file, error) {
		if full {
			return nil, errFull
		}
		return createFile(dir, name)
	}
	_ = o.commit()
	var lost uint64
	for i := range uint64(100) {
		if errors.Is(o.Append(removed(i)), ErrLost) {
			lost++
		}
	}
	full = false
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	got := all(t, o, 0)
	last := got[len(got)-1]
	if last.Kind != ledger.Gap || last.Lost != lost || lost == 0 || last.Host != "db1" || uint64(len(got)) != 101-lost {
		t.Errorf("%d records, %d lost, and the last is %+v", len(got), lost, last)
	}
}

// Before and after the writer's life, entries are durable all the same.
func TestAppendWithoutWriter(t *testing.T) {
	c := config(t.TempDir(), &fixed{})
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Append(entry(1)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := errors.Join(k.Append(entry(2)), k.Close()); err != nil {
		t.Error(err)
	}
	if err := k.Append(entry(3)); !errors.Is(err, ErrHeld) {
		t.Error(err)
	}
	if k, err = Open(c); err != nil || len(all(t, k.outbox, 0)) != 2 {
		t.Error(err)
	}
}

func TestEntryTooLarge(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}})
	o.put(ledger.Entry{Kind: ledger.Exec, Session: 7, Text: strings.Repeat("x", maxEntry)})
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if got := all(t, o, 0); len(got) != 1 || got[0].Kind != ledger.Gap || got[0].Session != 7 || got[0].Lost != 1 {
		t.Errorf("%+v", got)
	}
}

func TestOutboxIsBoundedOnDisk(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}, Quota: 2000})
	for i := range uint64(1000) {
		o.put(removed(i))
		if err := o.commit(); err != nil {
			if !errors.Is(err, errQuota) || o.onDisk() > 2000 {
				t.Fatal(err, o.onDisk())
			}
			return
		}
	}
	t.Error("no bound")
}

func TestSentSegmentsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	o := openBox(t, Config{Dir: dir, Clock: &ready{}})
	text := strings.Repeat("x", 1000)
	for range 3000 {
		o.put(ledger.Entry{Kind: ledger.Exec, Text: text})
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	files := func() int {
		f, err := filepath.Glob(filepath.Join(dir, "outbox", "*"+extension))
		if err != nil {
			t.Fatal(err)
		}
		return len(f)
	}
	if files() < 3 {
		t.Fatalf("%d segments", files())
	}
	if err := o.Kept(3000, true); err != nil || files() != 1 {
		t.Errorf("%d segments are left, %v", files(), err)
	}
	o = openBox(t, Config{Dir: dir, Clock: &ready{}})
	o.put(entry(1))
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if first, entries, err := o.Next(3000, 1000); first != 3001 || len(entries) != 1 || err != nil {
		t.Errorf("numbers go on with %d: %d entries, %v", first, len(entries), err)
	}
	// A database that was set back to before what is gone.
	name := o.Name()
	if err := o.Kept(5, true); !errors.Is(err, ErrRenamed) || o.Name() == name {
		t.Errorf("%v, name %s", err, o.Name())
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	got := all(t, o, 0)
	if last := got[len(got)-1]; last.Kind != ledger.Gap || got[len(got)-2].Session != 1 {
		t.Errorf("%+v", got[len(got)-2:])
	}
	if err := o.Kept(1, false); err != nil {
		t.Errorf("a late word: %v", err)
	}
}

func TestDamagedName(t *testing.T) {
	c := Config{Dir: t.TempDir(), Clock: &ready{}}
	o := openBox(t, c)
	o.put(entry(1))
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	name := o.Name()
	if err := os.WriteFile(filepath.Join(o.dir, nameFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o = openBox(t, c)
	if got := all(t, o, 0); o.Name() == name || len(got) != 1 {
		t.Errorf("name %s, %d records", o.Name(), len(got))
	}
}

func FuzzScan(f *testing.F) {
	whole := appendFrame(appendFrame(appendFrame(nil, 5, []byte("a")), 6, []byte("bb")), 7, []byte("ccc"))
	for _, b := range [][]byte{nil, whole, whole[:len(whole)-1], whole[1:], append([]byte{0, 0}, whole...), slices.Concat(whole, whole), make([]byte, 100)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		last, end := uint64(4), int64(0)
		for _, fr := range scan(b, 5) {
			if fr.seq <= last || int64(fr.from)-frameHead < end || fr.end() > int64(len(b)) || fr.size == 0 {
				t.Fatalf("frame %+v after %d, ending at %d", fr, last, end)
			}
			last, end = fr.seq, fr.end()
			if again := appendFrame(nil, fr.seq, b[fr.from:fr.end()]); !bytes.Equal(again, b[fr.from-frameHead:fr.end()]) {
				t.Fatalf("frame %+v is not what was written", fr)
			}
		}
	})
}
