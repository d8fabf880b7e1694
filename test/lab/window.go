package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Window is a person's terminal with a program in it.
type Window struct {
	cmd    *exec.Cmd
	master *os.File
	ended  chan struct{}
	err    error // once ended is closed

	mu    sync.Mutex // guards what follows
	shown strings.Builder
	at    time.Time     // when the last of it came
	news  chan struct{} // closed when more comes
}

// Window runs curfew as the person in a window of that size.
func (p *Person) Window(ctx context.Context, width, height uint16, args ...string) (*Window, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t := &Window{master: master, ended: make(chan struct{}), news: make(chan struct{})}
	n, err := unix.IoctlGetInt(t.fd(), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(t.fd(), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = t.Resize(width, height)
	}
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = slave.Close() }() // the program has its own
	t.cmd = p.command(ctx, args...)
	t.cmd.Env = append(t.cmd.Env, "TERM=xterm")
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 32<<10)
		for {
			n, err := master.Read(b)
			at := time.Now()
			t.mu.Lock()
			t.shown.Write(b[:n])
			t.at = at
			close(t.news)
			t.news = make(chan struct{})
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		t.err = t.cmd.Wait()
		<-read
		_ = master.Close() // all of it was read
		close(t.ended)
	}()
	return t, nil
}

func (t *Window) fd() int {
	raw, err := t.master.SyscallConn()
	n := -1
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) }) // -1 says that it is closed
	}
	return n
}

// Resize gives the window another size.
func (t *Window) Resize(width, height uint16) error {
	return unix.IoctlSetWinsize(t.fd(), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
}

// Type types.
func (t *Window) Type(text string) error {
	_, err := t.master.WriteString(text)
	return err
}

// Shown is all that the window showed.
func (t *Window) Shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// Until waits until the window has shown the text.
func (t *Window) Until(ctx context.Context, text string) error {
	return Until(ctx, fmt.Sprintf("%q", text), func() error {
		if s := t.Shown(); !strings.Contains(s, text) {
			select {
			case <-t.ended:
				return fmt.Errorf("it ended (%w), and showed %q", t.err, s)
			default:
				return fmt.Errorf("it shows %q", s)
			}
		}
		return nil
	})
}

// When waits for more than the window showed at first, with the text in it, and
// tells when that came.
func (t *Window) When(ctx context.Context, first int, text string) (time.Time, error) {
	for {
		t.mu.Lock()
		more, at, news := t.shown.String()[first:], t.at, t.news
		t.mu.Unlock()
		if more != "" && strings.Contains(more, text) {
			return at, nil
		}
		select {
		case <-news:
		case <-t.ended:
			return at, fmt.Errorf("it ended (%w), and showed %q", t.err, more)
		case <-ctx.Done():
			return at, fmt.Errorf("it shows %q: %w", more, ctx.Err())
		}
	}
}

// End waits for the program's end, and returns how it ended.
func (t *Window) End(ctx context.Context) error {
	select {
	case <-t.ended:
		return t.err
	case <-ctx.Done():
		return fmt.Errorf("it goes on and shows %q: %w", t.Shown(), ctx.Err())
	}
}

// Close closes the window, whatever runs in it.
func (t *Window) Close() { _ = t.cmd.Process.Kill() } // it has ended already
