// Package shell is the login shell of people under a grant: it has their
// terminal put under record, and runs their real shell on the one that it is
// given back.
//
// It holds no privilege and no secret. What it cannot have recorded it does
// not open.
package shell

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/record"
	"curfew.internal/clock"
	"curfew.internal/wire/terminal"
)

// Real is the shell that people get.
const Real = "/bin/bash"

// A Login is one call of the login shell.
type Login struct {
	Args   []string // as it was called
	Env    []string
	Socket string // of the recorder
	Clock  clock.Clock
}

// patience is how long a recorder that is being started anew is waited for.
const patience = 5 * time.Second

// Run runs the real shell, and returns its exit code. Where nothing is to be
// recorded, the real shell takes this process over, and Run returns only if
// that fails.
func (l Login) Run(ctx context.Context) (code int, err error) {
	// Nobody may look into this process, who holds the terminal itself: her
	// other programs run as the same user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("close this process to others: %w", err)
	}
	tty := terminalOf([]*os.File{os.Stdin, os.Stdout, os.Stderr})
	c, v, slave, err := l.ask(ctx, tty)
	if err != nil {
		return 1, err
	}
	switch v.Go {
	case terminal.Bare:
		_ = c.Close()                                     // all is said
		return 1, syscall.Exec(Real, l.args(), l.env("")) //nolint:gosec // her own shell, with what she gave it
	case terminal.Record:
		if slave != nil {
			return l.recorded(ctx, c, v, slave)
		}
	}
	if v.Message == "" {
		v.Message = "this terminal cannot be put under record"
	}
	return 1, errors.New(v.Message)
}

// terminalOf is the first of the files that is a terminal, or nil.
func terminalOf(files []*os.File) *os.File {
	for _, f := range files {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return f
		}
	}
	return nil
}

// ask hands the terminal to the recorder, and returns what comes back.
func (l Login) ask(ctx context.Context, tty *os.File) (*net.UnixConn, terminal.Verdict, *os.File, error) {
	var v terminal.Verdict
	c, err := record.Dial(ctx, l.Socket, patience, l.Clock)
	if err != nil {
		return nil, v, nil, errors.New("the recorder of this host does not answer, so that nobody logs in: ask an administrator to look at `systemctl status curfew-record`")
	}
	hello := terminal.Login{Terminal: tty != nil, Term: os.Getenv("TERM")}
	if len(hello.Term) > 64 {
		hello.Term = ""
	}
	if tty == nil {
		err = record.Send(c, hello)
	} else {
		err = record.Send(c, hello, tty)
	}
	var slave *os.File
	if err == nil {
		slave, err = record.Receive(c, &v)
	}
	if err != nil {
		_ = c.Close() // it is of no use
		return nil, v, nil, errors.New("the recorder of this host gave no answer, so that nobody logs in: ask an administrator to look at `systemctl status curfew-record`")
	}
	return c, v, slave, nil
}

// args are those of the real shell; a dash before its name makes it a login
// shell.
func (l Login) args() []string {
	name := filepath.Base(Real)
	if len(l.Args) > 0 && strings.HasPrefix(l.Args[0], "-") {
		name = "-" + name
	}
	if len(l.Args) < 2 {
		return []string{name}
	}
	return append([]string{name}, l.Args[1:]...)
}

// env is the real shell's: on another terminal, where there is one.
func (l Login) env(tty string) []string {
	env := slices.DeleteFunc(slices.Clone(l.Env), func(s string) bool {
		return strings.HasPrefix(s, "SHELL=") || tty != "" && strings.HasPrefix(s, "SSH_TTY=")
	})
	env = append(env, "SHELL="+Real)
	if tty != "" && slices.ContainsFunc(l.Env, func(s string) bool { return strings.HasPrefix(s, "SSH_TTY=") }) {
		env = append(env, "SSH_TTY="+tty)
	}
	return env
}

// recorded runs the real shell on the new terminal, and tells the recorder of
// the window's size and of the end.
func (l Login) recorded(ctx context.Context, c *net.UnixConn, v terminal.Verdict, slave *os.File) (int, error) {
	defer func() { _ = c.Close() }() // with it goes the recorder, if it is still there
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, unix.SIGWINCH)
	defer signal.Stop(sizes)
	cmd := exec.CommandContext(ctx, Real)
	cmd.Args, cmd.Env = l.args(), l.env(v.TTY)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = onto(os.Stdin, slave), onto(os.Stdout, slave), onto(os.Stderr, slave)
	// The new terminal becomes that of a session of the shell's own.
	ctty := slices.Index([]any{cmd.Stdin, cmd.Stdout, cmd.Stderr}, any(slave))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: ctty}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start %s: %w", Real, err)
	}
	_ = slave.Close() // the shell has it
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its state tells how
		close(ended)
	}()
	last := make(chan bool, 1) // whether the recorder said that all is shown; else it ended
	go func() {
		var n terminal.Notice
		_, err := record.Receive(c, &n)
		last <- err == nil && n.Say == terminal.Done
	}()
	for {
		select {
		case <-sizes:
			_ = record.Send(c, terminal.Notice{Say: terminal.Resized}) // the next one says it again
		case <-last: // the recorder is gone, and with it the terminal
			_ = cmd.Process.Signal(unix.SIGHUP)
			return 1, errLost
		case <-ended:
			_ = record.Send(c, terminal.Notice{Say: terminal.Exited}) // if nobody hears it, the next line tells
			if said := <-last; !said {
				return 1, errLost
			}
			return code(cmd.ProcessState), nil
		}
	}
}

var errLost = errors.New("the recorder of this terminal ended, and the session with it")

// onto is what stands in for one of the three files: the new terminal for the
// old one, and what is no terminal as it is.
func onto(f, slave *os.File) *os.File {
	if terminalOf([]*os.File{f}) == nil {
		return f
	}
	return slave
}

// code is how a shell tells of a program's end.
func code(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}
