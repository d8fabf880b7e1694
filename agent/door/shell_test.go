package door

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"curfew.internal/wire/shell"
)

// shells starts a server, and stops it at the end.
func shells(t *testing.T, talk func(context.Context, *Visitor)) string {
	t.Helper()
	ours := func(uint32) bool { return true }
	s := &Shells{Path: filepath.Join(t.TempDir(), "sudo.sock"), Talk: talk, Ours: ours, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	for range 1000 {
		if _, err := os.Lstat(s.Path); err == nil {
			return s.Path
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("there is no socket")
	return ""
}

func call(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAShellIsHeard(t *testing.T) {
	left := make(chan error, 1)
	path := shells(t, func(ctx context.Context, v *Visitor) {
		if v.PID != os.Getpid() || int(v.UID) != os.Getuid() {
			t.Errorf("%+v", v.Caller)
		}
		if l, err := v.Hear(ctx); err != nil || l.Typed.RunAs != "root" {
			t.Errorf("%v, %v", l, err)
		}
		short, done := context.WithTimeout(ctx, time.Millisecond)
		defer done()
		if _, err := v.Hear(short); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent shell: %v", err)
		}
		if err := v.Tell(ctx, shell.Reply{No: "no"}); err != nil {
			t.Error(err)
		}
		_, err := v.Hear(ctx)
		left <- err
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c := call(t, path)
	b, err := shell.Bytes(shell.Line{Typed: &shell.Typed{RunAs: "root"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, shell.MaxPacket)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := shell.ParseReply(buf[:n]); err != nil || r.No != "no" {
		t.Errorf("%v, %v", r, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-left; !errors.Is(err, io.EOF) {
		t.Errorf("who has left: %v", err)
	}
}

// One account does not take the places of all, and a talk that breaks takes
// nobody along.
func TestShellsOfOneAccountAreBounded(t *testing.T) {
	hold := make(chan struct{})
	begun := make(chan struct{}, 2*shellsOfOne)
	path := shells(t, func(ctx context.Context, _ *Visitor) {
		begun <- struct{}{}
		select {
		case <-hold:
			panic("broken")
		case <-ctx.Done():
		}
	})
	for range shellsOfOne {
		call(t, path)
		<-begun
	}
	if _, err := call(t, path).Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more: %v", err)
	}
	close(hold)
	c := call(t, path)
	for {
		select {
		case <-begun:
			return
		case <-time.After(20 * time.Millisecond): // those before are still leaving
			_ = c.Close()
			c = call(t, path)
		}
	}
}

// Whoever has many uids takes no place of those whom a grant names.
func TestStrangersAreBoundedTogether(t *testing.T) {
	s := &Shells{by: map[uint32]int{}, Ours: func(uid uint32) bool { return uid < 10 }}
	var leave []func()
	for uid := uint32(100); uid < 200; uid++ {
		if l, ok := s.enter(uid); ok {
			leave = append(leave, l)
		}
	}
	if len(leave) != strangers {
		t.Errorf("%d strangers are heard at once", len(leave))
	}
	for uid := range uint32(10) {
		for n := range shellsOfOne + 1 {
			if _, ok := s.enter(uid); ok != (n < shellsOfOne) {
				t.Errorf("place %d of uid %d: %v", n, uid, ok)
			}
		}
	}
	for _, l := range leave {
		l()
	}
	if _, ok := s.enter(100); !ok || s.strange != 1 || len(s.by) != 11 {
		t.Errorf("places are not given back: %v, %d, %v", ok, s.strange, s.by)
	}
}
