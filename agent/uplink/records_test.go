package uplink_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"curfew.internal/agent/uplink"
)

// A deaf outbox cannot be read, as on a disk with a bad sector.
type deaf struct {
	uplink.Outbox
	is *atomic.Bool
}

func (d deaf) Next(after uint64, most int) (uint64, [][]byte, error) {
	if d.is.Load() {
		return 0, nil, errors.New("bad sector")
	}
	return d.Outbox.Next(after, most)
}

// Records that cannot be read wait. The set that comes the same way does not:
// it may be the one that revokes.
func TestNoRecordKeepsASetFromComing(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1"))
	h.unread.Store(true)
	var links atomic.Int32
	h.dial = func(ctx context.Context, address string) (net.Conn, error) {
		links.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	h.start()
	for i := range 5 {
		numbered(t, h, 2*i, 2*i+2)
		w.put("db1", uint64(i+2))
		w.until("the set", func() bool { return h.revision() == uint64(i+2) })
	}
	if n := links.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	h.unread.Store(false)
	numbered(t, h, 10, 20)
	wantNumbered(w, 20)
}

// Whoever takes the agent's folder away while it runs keeps no set from coming,
// and takes nothing out of the record that was in the outbox's last part.
func TestAFolderThatIsTakenAwayCostsNothing(t *testing.T) {
	w := newWorld(t)
	stop := w.serve()
	h := w.host(w.join("db1")).start()
	numbered(t, h, 0, 10)
	wantNumbered(w, 10)
	stop()
	numbered(t, h, 10, 20) // not sent yet
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.put("db1", 2)
	w.until("the set", func() bool { return h.revision() == 2 })
	numbered(t, h, 20, 30)
	wantNumbered(w, 30)
}
