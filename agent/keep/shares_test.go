package keep

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// receipt is what must have room whatever sessions do.
func receipt() ledger.Entry { return ledger.Entry{Kind: ledger.Removed, Receipt: make([]byte, 64)} }

// Logins, and what is recorded of terminals, come as often as somebody likes, each
// of another session: they cost no receipt its place on the disk, and what they
// cost themselves is told, with its bounds.
func TestAFloodOfLoginsCostsNoReceipt(t *testing.T) {
	for name, full := range map[string]bool{"the quota is used up": false, "the disk is full": true} {
		t.Run(name, func(t *testing.T) {
			o := cramped(t, full)
			var made, dropped uint64
			for session := uint64(1); session < 5000 && dropped < 3*missedOf+300; session++ {
				for _, k := range []ledger.Kind{ledger.Login, ledger.Terminal, ledger.Logout} {
					var lost *LostError
					err := o.Append(ledger.Entry{Kind: k, At: day, Session: session, Person: "ana", Text: "sudo"})
					if made++; errors.As(err, &lost) {
						dropped++
					} else if err != nil && !full {
						t.Fatalf("entry %d is in memory only: %v", made, err)
					}
				}
			}
			for range 10 {
				if err := o.Append(receipt()); errors.Is(err, ErrLost) || err != nil && !full {
					t.Fatal("a receipt has no room:", err)
				}
			}
			o.create, o.quota = createFile, 1<<30
			if err := errors.Join(o.Kept(0, true), o.commit()); err != nil {
				t.Fatal(err)
			}
			kinds, lost := tally(t, o)
			if is := kinds[ledger.Login] + kinds[ledger.Terminal] + kinds[ledger.Logout]; is != made-dropped || lost != dropped || dropped == 0 || kinds[ledger.Removed] != 10 {
				t.Errorf("%v, %d told as missing; %d were made, %d not taken", kinds, lost, made, dropped)
			}
			for _, e := range all(t, o, 0) {
				if e.Kind == ledger.Gap && (e.Since.IsZero() || e.At.IsZero()) {
					t.Errorf("a gap without bounds: %+v", e)
				}
			}
		})
	}
}

// What is offered is on the disk, or is its owner's still: it is no gap.
func TestWhatIsOfferedIsNotMissed(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: &ready{}, Host: "db1", Quota: 64 << 10})
	segment := ledger.Entry{Kind: ledger.Terminal, Session: 7, Receipt: make([]byte, 200)}
	offered := uint64(0)
	for ; ; offered++ {
		if err := o.Offer(segment); errors.Is(err, ErrFull) {
			break
		} else if err != nil || offered > 10_000 {
			t.Fatal(offered, err)
		}
	}
	if err := o.Append(receipt()); err != nil {
		t.Fatal("a receipt has no room:", err)
	}
	if err := o.Kept(o.durable, true); err != nil {
		t.Fatal(err)
	}
	o.broken, o.create = true, func(*os.Root, string) (file, error) { return nil, errFull }
	if err := o.Append(receipt()); !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	if err := o.Offer(segment); !errors.Is(err, ErrFull) {
		t.Error("the disk takes nothing, and it is in memory only:", err)
	}
	o.create = createFile
	if err := errors.Join(o.commit(), o.Kept(offered+2, true), o.Offer(segment)); err != nil {
		t.Fatal(err)
	}
	for _, e := range all(t, o, o.kept) {
		if e.Kind == ledger.Gap {
			t.Errorf("%d are told as missing", e.Lost)
		}
	}
}

// slow is a file of a disk that takes longer than anybody waits.
type slow struct{ file }

func (s slow) Sync() error {
	time.Sleep(patience + patience/2)
	return s.file.Sync()
}

// bubbled is a clock that goes as time does where a test makes it.
type bubbled struct{}

func (bubbled) Now() clock.Reading { return clock.Reading{Wall: time.Now()} }

func (bubbled) After(d time.Duration) <-chan time.Time { return time.After(d) }

// A disk that is slow to take what is offered gets it once.
func TestWhatIsOfferedToASlowDiskIsPutOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := openBox(t, Config{Dir: dir, Clock: bubbled{}, Host: "db1"})
		o.create = func(r *os.Root, name string) (file, error) {
			f, err := createFile(r, name)
			return slow{f}, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.run(ctx) }()
		synctest.Wait()
		tries := 0
		for _, receipt := range []string{"first", "second"} {
			for o.Offer(ledger.Entry{Kind: ledger.Terminal, Session: 7, Receipt: []byte(receipt)}) != nil && tries < 100 {
				tries++
				time.Sleep(300 * time.Millisecond)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if tries == 0 || tries == 100 || o.durable != 2 || len(o.offered) != 0 {
			t.Errorf("after %d tries %d entries are there", tries, o.durable)
		}
	})
}
