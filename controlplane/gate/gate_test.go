package gate

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"curfew.internal/clock"
)

// rig is a gate, and what came through it.
type rig struct {
	*testing.T
	gate *Listener
	came chan net.Conn
}

func newRig(t *testing.T, strangers int, stay time.Duration) *rig {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, &Listener{Listener: l, Strangers: strangers, Stay: stay, Clock: clock.System{}}, make(chan net.Conn, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := r.gate.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			r.came <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for len(r.came) > 0 {
			_ = (<-r.came).Close()
		}
	})
	return r
}

// dial connects from an address.
func (r *rig) dial(from string) net.Conn {
	r.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(r.Context(), "tcp", r.gate.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Close() })
	return c
}

// in connects, and is let in: the gate's end is returned as well.
func (r *rig) in(from string) (theirs net.Conn, ours *conn) {
	r.Helper()
	theirs = r.dial(from)
	return theirs, (<-r.came).(*conn)
}

// closed waits until the other side has hung up.
func (r *rig) closed(what string, c net.Conn) {
	r.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		r.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		r.Errorf("%s stands: %v", what, err)
	}
}

// stands checks that what is written on one side comes out on the other.
func (r *rig) stands(what string, theirs, ours net.Conn) {
	r.Helper()
	if _, err := theirs.Write([]byte("x")); err != nil {
		r.Errorf("%s: %v", what, err)
		return
	}
	if _, err := ours.Read(make([]byte, 1)); err != nil {
		r.Errorf("%s: %v", what, err)
	}
}

func TestAnAddressCrowdsOutItselfAlone(t *testing.T) {
	r := newRig(t, 4, 0)
	var theirs []net.Conn
	var ours []*conn
	for range 4 {
		a, b := r.in("127.0.0.2")
		theirs, ours = append(theirs, a), append(ours, b)
	}
	r.closed("a fifth of one address", r.dial("127.0.0.2"))
	one, other := r.in("127.0.0.1")
	r.stands("who comes from elsewhere", one, other)
	r.closed("the newest of the address that has most", theirs[3])
	for i := range 3 {
		r.stands("an earlier one", theirs[i], ours[i])
	}
	if err := errors.Join(ours[0].Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	_ = other.Close() // a second time counts for nothing
	for range 2 {
		a, b := r.in("127.0.0.2")
		r.stands("who takes a place that was left", a, b)
	}
	r.closed("who finds none", r.dial("127.0.0.2"))
}

func TestStrangersDoNotStay(t *testing.T) {
	r := newRig(t, 100, 300*time.Millisecond)
	theirs, ours := r.in("127.0.0.1")
	known, host := r.in("127.0.0.1")
	if !host.Known("db1") {
		t.Fatal("the host may not go on")
	}
	for what, put := range map[string]func(time.Time) error{"any": ours.SetDeadline, "read": ours.SetReadDeadline, "write": ours.SetWriteDeadline} {
		for _, at := range []time.Time{{}, time.Now().Add(time.Hour)} {
			if err := put(at); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	// She goes on saying a byte now and then.
	drip := func() error {
		_, err := theirs.Write([]byte("x"))
		return err
	}
	for {
		_ = drip() // the gate's end says when it is over
		if _, err := ours.Read(make([]byte, 1)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			break
		}
	}
	if err := host.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.stands("who is known", known, host)
}

func TestWhoIsKnownTakesNoStrangersPlace(t *testing.T) {
	r := newRig(t, 1, 0)
	for range perName {
		if _, c := r.in("127.0.0.1"); !c.Known("db1") {
			t.Fatal("refused")
		}
	}
	_, c := r.in("127.0.0.1")
	if c.Known("db1") {
		t.Error("one host has more than it may")
	}
	if !c.Known("db2") || c.Known("db3") {
		t.Error("another host is refused, or it is two hosts")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c.Known("db2") {
		t.Error("what is closed is known")
	}
	if _, c = r.in("127.0.0.1"); !c.Known("db2") {
		t.Error("its place was not given back")
	}
}
