package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Result is what a program on a host printed, and how it ended.
type Result struct {
	Out  string
	Err  string
	Code int // as a shell has it: 128 and the signal for one that was killed
}

// enter runs "$@" as a child of nobody's login: the login uid of whoever runs
// the tests is not the host's, and what the host's root may not do (set the
// clock of the whole machine, say), a test may not do there either. $1 is what
// it may.
const enter = `echo 4294967295 2>/dev/null >/proc/self/loginuid
caps=$1; shift
exec setpriv --bounding-set "$caps" -- "$@"`

// Command is a program on the host, run as root from outside of any login.
// When ctx is done, it and its children are killed.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := strconv.Itoa(h.leader)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"-t", pid, "-m", "-u", "-i", "-n", "-p", "-C", "--", "/bin/sh", "-c", enter, "enter", h.caps, name,
	}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a program on the host to its end. It is an error only if it could
// not be run: a program that fails says so in its code.
func (h *Host) Run(ctx context.Context, name string, args ...string) (Result, error) {
	var out, errOut bytes.Buffer
	cmd := h.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := finish(cmd)
	r := Result{Out: out.String(), Err: errOut.String()}
	if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
		r.Code = exit.ExitCode()
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			r.Code = 128 + int(s.Signal())
		}
		return r, nil
	}
	return r, h.explain(ctx, err, errOut.Bytes())
}

// Sh runs a script on the host and returns what it printed.
func (h *Host) Sh(ctx context.Context, script string) (string, error) { return h.Feed(ctx, "", script) }

// Feed runs a script on the host with something on its standard input.
func (h *Host) Feed(ctx context.Context, input, script string) (string, error) {
	var out bytes.Buffer
	cmd := h.Command(ctx, "/bin/bash", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	err := finish(cmd)
	return out.String(), h.explain(ctx, err, out.Bytes())
}

// Put writes a file on the running host, whole or not at all.
func (h *Host) Put(ctx context.Context, name, content string, mode fs.FileMode) error {
	part := path.Join(path.Dir(name), "."+path.Base(name)+".part")
	_, err := h.Feed(ctx, content, fmt.Sprintf("set -e; umask 077; mkdir -p -m 755 -- %[1]s; cat > %[2]s; chmod %[3]o %[2]s; mv -fT %[2]s %[4]s",
		quote(path.Dir(name)), quote(part), mode.Perm(), quote(name)))
	return err
}

// Read returns a file of the running host.
func (h *Host) Read(ctx context.Context, name string) (string, error) {
	r, err := h.Run(ctx, "cat", "--", name)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("on %s: %s", h.Name, strings.TrimSpace(r.Err))
	}
	return r.Out, err
}

// finish runs a program. That one of its children lives on and keeps the
// output open is its right.
func finish(cmd *exec.Cmd) error {
	if err := cmd.Run(); !errors.Is(err, exec.ErrWaitDelay) {
		return err
	}
	return nil
}

func (h *Host) explain(ctx context.Context, err error, printed []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("on %s: %w: %s", h.Name, errors.Join(err, ctx.Err()), tail(printed))
}

// bounds are the capabilities that a process can have at most, as setpriv
// wants them.
func bounds(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(b), "\nCapBnd:")
	hex, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
	if err != nil {
		return "", fmt.Errorf("capabilities of process %d: %w", pid, err)
	}
	caps := "-all"
	for i := range 64 {
		if set&(1<<i) != 0 {
			caps += fmt.Sprintf(",+cap_%d", i)
		}
	}
	return caps, nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
