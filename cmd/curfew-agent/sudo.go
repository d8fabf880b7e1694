package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"curfew.internal/agent"
	"curfew.internal/wire/shell"
)

// sudoCmd runs before sudo, in the shell of whoever typed it; the shell
// function in profile.d calls it. It holds no privilege and gives none.
type sudoCmd struct {
	Args []string `arg:"" optional:"" passthrough:"" help:"What stands behind sudo."`
}

// length is for how long it asks, unless $CURFEW_FOR or the role says less.
const length = 30 * time.Minute

// Run succeeds when sudo may be tried: because a grant allows it, because one
// was given, or because the call is none of ours.
func (s sudoCmd) Run(ctx context.Context, p *program) error {
	c := agent.ReadSudo(s.Args)
	if !c.Known || c.Odd != "" {
		return nil // sudo says itself what it makes of it
	}
	t, err := typed(c, s.Args)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: answerWithin}).DialContext(ctx, "unixpacket", filepath.Join(p.folders.Run, "sudo.sock"))
	if err != nil {
		return errors.New("the agent of this host does not answer, so sudo is refused and nobody can be asked: it is started again by itself; if not, tell an administrator (`systemctl status curfew-agent`)")
	}
	k := talk{conn: conn}
	defer func() { _ = conn.Close() }() // all was said
	if err := k.say(shell.Line{Typed: &t}); err != nil {
		return err
	}
	r, err := k.first(ctx)
	if err != nil || r.Run != nil {
		return err
	}
	stop := context.AfterFunc(ctx, k.interrupt)
	defer stop()
	if r.No != "" {
		return errors.New(clean(r.No))
	}
	if err := k.open(c, r); err != nil {
		return err
	}
	defer func() { _ = k.tty.Close() }() // it was read and written to the end
	return k.ask(ctx, r)
}

// How long the agent has: to take a call; to say who could be asked, which it
// asks the control plane; and for its last word, once she has given up.
const (
	answerWithin = 3 * time.Second
	offerWithin  = 20 * time.Second
	lastWithin   = 20 * time.Second
)

// securePath is where sudo looks for programs (sudoers(5), secure_path).
var securePath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// typed is what the agent is told.
func typed(c agent.SudoCall, args []string) (shell.Typed, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "?" // it was removed
	}
	t := shell.Typed{RunAs: c.User, Directory: dir}
	if c.Shell || c.Env {
		t.Shell, t.Args = true, args
		return t, nil
	}
	if t.Paths = paths(c.Words[0]); len(t.Paths) == 0 {
		return t, fmt.Errorf("%s: command not found", clean(c.Words[0]))
	}
	t.Args = c.Words[1:]
	return t, nil
}

// paths are the program's file in each of its spellings: a role may name any
// of them, and /bin is /usr/bin on most hosts.
func paths(program string) []string {
	var first os.FileInfo
	var all []string
	if strings.Contains(program, "/") {
		abs, err := filepath.Abs(program)
		if first, err = stat(abs, err); err != nil {
			return nil
		}
		all = append(all, abs)
	}
	for _, dir := range securePath {
		file := filepath.Join(dir, filepath.Base(program))
		info, err := stat(file, nil)
		if err != nil || first != nil && !os.SameFile(first, info) || len(all) > 0 && all[0] == file {
			continue
		}
		first, all = info, append(all, file)
	}
	return all
}

func stat(file string, err error) (os.FileInfo, error) {
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err == nil && (info.IsDir() || info.Mode()&0o111 == 0) {
		err = os.ErrPermission
	}
	return info, err
}

// talk is what is said between this shell, its agent and its person.
type talk struct {
	conn net.Conn
	tty  *os.File
	keys *bufio.Reader // of tty
}

// control calls f with the terminal's descriptor. [os.File.Fd] would make it
// one that no deadline ends a read of.
func control(tty *os.File, f func(fd int) error) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

var errAgentMute = errors.New("the agent of this host does not answer, and nobody was asked: try again in a moment; if it stays so, tell an administrator (`systemctl status curfew-agent`)")

var errAgentLeft = errors.New("the agent of this host went away: what was asked for goes on (`curfew requests`); try again in a moment")

func (k talk) say(l shell.Line) error {
	b, err := shell.Bytes(l)
	if err == nil {
		_, err = k.conn.Write(b)
	}
	if errors.Is(err, shell.ErrForm) {
		return errors.New("what you typed is too long to be asked for: put it into a script")
	}
	if err != nil {
		return errAgentLeft
	}
	return nil
}

func (k talk) hear() (shell.Reply, error) {
	buf := make([]byte, shell.MaxPacket+1)
	n, err := k.conn.Read(buf)
	if err != nil {
		return shell.Reply{}, errAgentLeft
	}
	r, err := shell.ParseReply(buf[:n])
	if err != nil {
		return r, errors.New("the agent of this host speaks another version: log in again")
	}
	return r, nil
}

// first is the agent's first answer. Nothing has been asked for before it: who
// presses Ctrl-C has no last word to wait for.
func (k talk) first(ctx context.Context) (shell.Reply, error) {
	waiting, done := context.WithTimeout(ctx, offerWithin)
	defer done()
	stop := context.AfterFunc(waiting, k.hangUp)
	r, err := k.hear()
	stop()
	switch {
	case ctx.Err() != nil:
		return shell.Reply{}, errGivenUp
	case waiting.Err() != nil:
		return shell.Reply{}, errAgentMute
	}
	return r, err
}

// hangUp ends what is being heard or said.
func (k talk) hangUp() { _ = k.conn.SetDeadline(time.Unix(1, 0)) } // who hears or speaks says so

// interrupt gives up; the agent has the last word, for a while. Whoever does
// not wait for it presses Ctrl-C again.
func (k talk) interrupt() {
	signal.Reset(os.Interrupt)
	_ = k.say(shell.Line{GiveUp: true}) // if it cannot be told, it sees us leave
	time.AfterFunc(lastWithin, k.hangUp)
}

// open finds the terminal to ask at. Where nobody can answer, it says at once
// what would help.
func (k *talk) open(c agent.SudoCall, r shell.Reply) error {
	roles := r.Offers[0].Role
	for _, o := range r.Offers[1:] {
		roles += " or " + o.Role
	}
	cannot := ""
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	switch {
	case c.Quiet:
		cannot = "sudo -n does not ask"
	case err != nil:
		cannot = "there is no terminal to ask at"
	case !foreground(tty):
		cannot = "a command in the background cannot ask"
	}
	if cannot == "" {
		k.tty, k.keys = tty, bufio.NewReader(tty)
		return nil
	}
	if err == nil {
		_ = tty.Close() // nothing was written
	}
	return fmt.Errorf("no grant of yours on %s allows this; role %s would, and %s: ask with `curfew request %s --on %s --for %s`",
		clean(r.Host), clean(roles), cannot, clean(r.Offers[0].Role), clean(r.Host), span(min(length, r.Offers[0].Most)))
}

func foreground(tty *os.File) bool {
	group := 0
	err := control(tty, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return err == nil && group == unix.Getpgrp()
}

func (k talk) line(format string, args ...any) {
	_, _ = fmt.Fprintf(k.tty, "curfew: "+format+"\n", args...) // a terminal that is gone has nobody to tell
}

// ask asks the person for what the request needs, and follows it.
func (k talk) ask(ctx context.Context, r shell.Reply) error {
	o, err := k.pick(ctx, r)
	if err != nil {
		return err
	}
	c := shell.Choice{Role: o.Role, For: min(length, o.Most)}
	if said := os.Getenv("CURFEW_FOR"); said != "" {
		if c.For, err = time.ParseDuration(said); err != nil || c.For < time.Second {
			return errors.New("$CURFEW_FOR is no duration: write 45m or 2h")
		}
		c.For = min(c.For, o.Most)
	}
	if c.Reason, err = k.prompt(ctx, "Reason: ", o.Reason); err != nil {
		return err
	}
	if o.Ticket {
		if c.Ticket, err = k.prompt(ctx, "Ticket: ", true); err != nil {
			return err
		}
	}
	if c.Code, err = k.secret(ctx, "Code of your second factor: "); err != nil {
		return err
	}
	if err := k.say(shell.Line{Choice: &c}); err != nil {
		return err
	}
	return k.follow(c)
}

// pick says which roles would do, and has one chosen.
func (k talk) pick(ctx context.Context, r shell.Reply) (shell.Offer, error) {
	if len(r.Offers) == 1 {
		o := r.Offers[0]
		k.line("no grant of yours on %s allows this; role %s would%s", clean(r.Host), clean(o.Role), approval(o))
		return o, nil
	}
	k.line("no grant of yours on %s allows this; these roles would:", clean(r.Host))
	for i, o := range r.Offers {
		k.line("  %d  %s%s", i+1, clean(o.Role), approval(o))
	}
	for {
		said, err := k.prompt(ctx, "Which [1]: ", false)
		if err != nil {
			return shell.Offer{}, err
		}
		if said == "" {
			return r.Offers[0], nil
		}
		if n, err := strconv.Atoi(said); err == nil && n >= 1 && n <= len(r.Offers) {
			return r.Offers[n-1], nil
		}
	}
}

func approval(o shell.Offer) string {
	text := ""
	if o.Description != "" {
		text = " (" + clean(o.Description) + ")"
	}
	if o.Needed == 0 {
		return text + ", nobody has to approve"
	}
	return fmt.Sprintf("%s, once approved by %d of %s", text, o.Needed, clean(strings.Join(o.Approvers, ", ")))
}

// follow shows how the request stands until the agent's last word.
func (k talk) follow(c shell.Choice) error {
	said, approved := "", 0
	for {
		r, err := k.hear()
		switch {
		case err != nil:
			return err
		case r.No != "":
			return errors.New(clean(r.No))
		case r.Run != nil:
			by := ""
			if len(r.Run.Approved) > 0 {
				by = " by " + clean(strings.Join(r.Run.Approved, ", "))
			}
			k.line("approved%s: role %s until %s", by, clean(c.Role), r.Run.Until.UTC().Format("15:04 MST"))
			return nil
		case r.State == nil:
			continue
		}
		st := r.State
		for _, name := range st.Approved[min(approved, len(st.Approved)):] {
			k.line("%s approved", clean(name))
		}
		approved = len(st.Approved)
		now := fmt.Sprintf("%s waits for %s until %s; Ctrl-C withdraws it", clean(st.Request), clean(st.WaitsFor), st.Lapses.UTC().Format("15:04 MST"))
		switch {
		case st.Away && st.Request == "":
			now = "the control plane does not answer yet, and is asked again; Ctrl-C gives up"
		case st.Away:
			now = "the control plane does not answer for now; " + clean(st.Request) + " goes on waiting"
		}
		if now != said {
			k.line("%s", now)
		}
		said = now
	}
}

var errGivenUp = errors.New("given up; nobody was asked")

// prompt reads a line from the terminal.
func (k talk) prompt(ctx context.Context, text string, required bool) (string, error) {
	for {
		said, err := k.read(ctx, text)
		if err != nil || said != "" || !required {
			return said, err
		}
	}
}

// secret reads a line that does not show.
func (k talk) secret(ctx context.Context, text string) (said string, err error) {
	var was unix.Termios
	err = control(k.tty, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		was = *t
		t.Lflag &^= unix.ECHO
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
	if err != nil {
		return "", err
	}
	said, err = k.prompt(ctx, text, true)
	_, _ = fmt.Fprintln(k.tty) // as in line
	return said, errors.Join(err, control(k.tty, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &was) }))
}

// read waits for a line or for Ctrl-C.
func (k talk) read(ctx context.Context, text string) (string, error) {
	_, _ = fmt.Fprint(k.tty, text)                                                        // as in line
	stop := context.AfterFunc(ctx, func() { _ = k.tty.SetReadDeadline(time.Unix(1, 0)) }) // the read says so
	defer stop()
	said, err := k.keys.ReadString('\n')
	if err != nil {
		_, _ = fmt.Fprintln(k.tty) // as in line
		return "", errGivenUp      // Ctrl-C, Ctrl-D, or the terminal is gone
	}
	return strings.TrimSpace(said), nil
}

// clean makes text from elsewhere safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// span writes a duration without the zero parts at its end.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
