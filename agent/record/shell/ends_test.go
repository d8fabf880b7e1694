package shell

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/cast"
	"curfew.internal/wire/terminal"
)

func TestWhatIsTypedIsRecordedWhileItShows(t *testing.T) {
	a := usual
	a.Typed = true
	s := newStage(t, a)
	w := s.login(t)
	w.types(t, "echo ready-$((1+1)); cat\r", "ready-2")
	w.types(t, "in-the-open\r", "in-the-open\r\nin-the-open")
	w.types(t, "\x04echo back-$((1+1))\r", "back-2")
	w.types(t, "read -rsp 'wo''rd: ' x; echo; echo got ${#x}\r", "word: ")
	w.types(t, "Kn0ckKn0ck\r", "got 10")
	w.types(t, "exit\r", "logout")
	_, _, events := s.recording(t)
	if in := said(events, cast.Input); !strings.Contains(in, "in-the-open\r") || strings.Contains(in, "Kn0ck") {
		t.Errorf("input %q", in)
	}
	if out := said(events, cast.Output); strings.Contains(out, "Kn0ck") {
		t.Errorf("output %q", out)
	}
}

// pids finds the processes of the stage's program that were called with the
// word.
func (s *stage) pids(t *testing.T, word string) []int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err == nil && bytes.HasPrefix(b, []byte(filepath.Join(s.dir, "program")+"\x00")) && bytes.Contains(b, []byte(word)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			found = append(found, pid)
		}
	}
	return found
}

func TestWhoeverEndsTheRecorderEndsTheSession(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	w.types(t, "trap '' HUP; echo up-$((1+1))\r", "up-2")
	recorders := s.pids(t, `"session":2748`)
	if len(recorders) != 1 {
		t.Fatalf("recorders %v", recorders)
	}
	if err := unix.Kill(recorders[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(); w.ProcessState.ExitCode() != 1 {
		t.Errorf("the login ended: %v", err)
	}
	all, err := s.spool.Recordings()
	if err != nil || len(all) != 1 || all[0].Alive() {
		t.Fatalf("%v %v", all, err)
	}
	if end, told := all[0].End(); told {
		t.Errorf("it says that it ended: %+v", end)
	}
	// What had been shown is there.
	if err := all[0].Salvage(); err != nil {
		t.Fatal(err)
	}
	b, err := all[0].Segment(1)
	if err != nil || !bytes.Contains(b, []byte("up-2")) {
		t.Errorf("%v %s", err, b)
	}
}

func TestHerOtherProgramsDoNotReachTheWindowPastTheRecord(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	w.types(t, "outer=$(ps -o tty= -p $PPID); echo x > /dev/$outer; cat /proc/$PPID/fd/0; cat /proc/$PPID/environ; echo tried-$((1+1))\r", "tried-2")
	if n := strings.Count(w.text(), "ermission denied"); n != 3 {
		t.Errorf("%d of 3 were refused: %s", n, w.text())
	}
	if err := unix.Kill(-w.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	end, _, _ := s.recording(t)
	if end.Why != "the login shell was ended" {
		t.Errorf("%+v", end)
	}
}

func TestWithoutATerminalTheShellIsAsItWas(t *testing.T) {
	s := newStage(t, usual)
	cmd := s.command(t, "-c", "echo $SHELL; cat; exit 3")
	cmd.Stdin = strings.NewReader("through\n")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 3 || string(out) != "/bin/bash\nthrough\n" {
		t.Errorf("%v %q", err, out)
	}
	if q := <-s.asked; q.Terminal || q.PID == 0 {
		t.Errorf("the agent was asked %+v", q)
	}
	s.answers(terminal.Answer{Refused: "your role wants a terminal"})
	cmd = s.command(t, "-c", "echo let in")
	if out, err := cmd.CombinedOutput(); err == nil || string(out) != "curfew: your role wants a terminal\n" {
		t.Errorf("%v %q", err, out)
	}
	if all, err := s.spool.Recordings(); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// An agent on a busy host thinks longer than a login's first word may take:
// its answer reaches the person all the same.
func TestAnAgentThatThinksIsWaitedFor(t *testing.T) {
	s := newStage(t, usual)
	for _, a := range []terminal.Answer{usual, {Refused: "your role wants a terminal"}} {
		s.answers(a)
		cmd := s.command(t, "-c", "echo let in")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		s.mu.Lock()
		err := cmd.Start()
		if err == nil {
			<-s.asked
			<-time.After(2500 * time.Millisecond)
		}
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		want := "let in\n"
		if a.Refused != "" {
			want = "curfew: " + a.Refused + "\n"
		}
		if err := cmd.Wait(); out.String() != want {
			t.Errorf("%v %q", err, out.String())
		}
	}
}

func TestARoleMayLeaveTerminalsAlone(t *testing.T) {
	a := usual
	a.Unseen = true
	s := newStage(t, a)
	w := s.login(t)
	w.types(t, "echo one-$((1+1)); exit\r", "one-2")
	_ = w.Wait()
	if all, err := s.spool.Recordings(); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// A flood is recorded to the last byte, in segments, and nothing of it is kept
// in memory.
func TestAFloodIsRecordedWhole(t *testing.T) {
	s := newStage(t, usual)
	b := make([]byte, 3<<20)
	_, _ = rand.Read(b)
	file := filepath.Join(s.dir, "flood")
	text := base64.StdEncoding.EncodeToString(b)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	w := s.login(t)
	w.types(t, "cat "+file+"; echo; echo end-$((1+1))\r", "end-2")
	w.types(t, "exit\r", "logout")
	_, heads, events := s.recording(t)
	if out := said(events, cast.Output); !strings.Contains(out, text) || len(heads) < 8 {
		t.Errorf("%d of %d bytes, in %d segments", len(out), len(text), len(heads))
	}
}

func TestAStormOfSizesEndsWithTheLast(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	w.types(t, "echo go-$((1+1))\r", "go-2")
	for i := range uint16(2000) {
		if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 10 + i%300, Row: 7}); err != nil {
			t.Fatal(err)
		}
	}
	w.types(t, "until stty size | grep '^7 209'; do sleep 0.05; done; exit\r", "7 209\r")
	_, _, events := s.recording(t)
	sizes := 0
	for _, e := range events {
		if e.Kind == cast.Resize {
			sizes++
		}
	}
	if !strings.HasSuffix(said(events, cast.Resize), "209x7") || sizes > 2000 {
		t.Errorf("%d sizes, the last %.20s", sizes, said(events, cast.Resize))
	}
}

// A window without a size is one as well, and that it got one is told.
func TestAWindowThatHadNoSize(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	w.types(t, "echo go-$((1+1))\r", "go-2")
	for _, size := range []unix.Winsize{{}, {Col: 100, Row: 33}} {
		if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
			t.Fatal(err)
		}
		is := fmt.Sprintf("%d %d", size.Row, size.Col)
		w.types(t, "until stty size | grep '^"+is+"$'; do sleep 0.05; done\r", "\n"+is+"\r")
	}
	w.types(t, "exit\r", "logout")
	if _, _, events := s.recording(t); said(events, cast.Resize) != "0x0100x33" {
		t.Errorf("sizes %q", said(events, cast.Resize))
	}
}

// Where there is no room, a session goes on and the recording says how much is
// missing; or it ends, if its role wants that.
func TestWhereThereIsNoRoom(t *testing.T) {
	a := usual
	a.Quota = 64 << 10 // a fourth of it for one
	s := newStage(t, a)
	w := s.login(t)
	w.types(t, "head -c 30000 /dev/zero | tr '\\0' x; sleep 1.2; echo; echo end-$((1+1))\r", "end-2")
	w.types(t, "exit\r", "logout")
	end, _, events := s.recording(t)
	if lost := end.Lost + cast.Lost(events); lost == 0 || end.Why != "the shell ended" || strings.Contains(said(events, cast.Output), "end-2") {
		t.Errorf("%+v, %d bytes are missing", end, lost)
	}

	a.Strict = true
	s = newStage(t, a)
	w = s.login(t)
	if _, err := w.master.WriteString("head -c 30000 /dev/zero | tr '\\0' x; sleep 1.2; echo; echo end-$((1+1))\r"); err != nil {
		t.Fatal(err)
	}
	_ = w.Wait()
	end, _, _ = s.recording(t)
	eventually(t, "word to the person", func() error {
		if !strings.Contains(w.text(), "your role demands") {
			return errors.New(w.text())
		}
		return nil
	})
	if end.Why != "it could not be recorded any more" || strings.Contains(w.text(), "end-2") {
		t.Errorf("%+v", end)
	}
}

// What she left running gets the terminal of sshd not even where the session
// ends because it cannot be recorded, and her login shell is held up.
func TestWhatOutlivesTheRecordingHasNoTerminal(t *testing.T) {
	a := usual
	a.Quota, a.Strict = 64<<10, true
	s := newStage(t, a)
	w := s.login(t)
	w.types(t, "trap '' HUP; outer=/dev/$(ps -o tty= -p $PPID); kill -STOP $PPID; echo held-$((1+1))\r", "held-2")
	after := filepath.Join(s.dir, "after")
	if err := os.Mkdir(after, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(after, 0o777); err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("(until ! echo > /dev/tty; do sleep 0.05; done; echo past-the-record > $outer; cp /etc/hostname %s/done) 2>%[1]s/err &\r", after)
	if _, err := w.master.WriteString(line + "head -c 30000 /dev/zero | tr '\\0' x; sleep 1.2; echo; echo end-$((1+1))\r"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what she left running to have tried", func() error {
		_, err := os.Stat(filepath.Join(after, "done"))
		return err
	})
	end, _, _ := s.recording(t)
	b, err := os.ReadFile(filepath.Join(after, "err"))
	if err != nil || !bytes.Contains(b, []byte("ermission denied")) || strings.Contains(w.text(), "past-the-record") || !end.Cut {
		t.Errorf("%+v %v %s: %s", end, err, b, w.text())
	}
}

// One person's recordings leave room for others'.
func TestOnePersonsRecordingsTakeAFourthOfTheRoom(t *testing.T) {
	a := usual
	a.Quota = 4 << 20
	s := newStage(t, a)
	first := s.login(t)
	first.types(t, "head -c 1500000 /dev/zero | tr '\\0' x; echo; echo full-$((1+1))\r", "full-2")
	second := s.login(t)
	second.types(t, "echo lost-$((1+1))\r", "lost-2")
	a.Person, a.Session = "ben", 0xdef
	s.answers(a)
	third := s.login(t)
	third.types(t, "echo kept-$((1+1)); exit\r", "logout")
	second.types(t, "exit\r", "logout")
	eventually(t, "the ends", func() error {
		all, err := s.spool.Recordings()
		if err != nil || len(all) != 3 {
			return fmt.Errorf("%d recordings: %w", len(all), err)
		}
		for _, r := range all[1:] {
			if end, told := r.End(); !told || (end.Lost > 0) != (r.Person == "ana") {
				return fmt.Errorf("%s: %+v", r.Person, end)
			}
		}
		return nil
	})
}

// A terminal within one that is recorded is recorded already.
func TestALoginWithinIsNotRecordedTwice(t *testing.T) {
	s := newStage(t, usual)
	w := s.login(t)
	env := fmt.Sprintf("RECORD_TEST=shell RECORD_SOCKET=%s PS1='in> '", filepath.Join(s.dir, "record.sock"))
	w.types(t, env+" "+filepath.Join(s.dir, "program")+"\r", "in> ")
	w.types(t, "echo in-$((1+1)); exit\r", "in-2")
	w.types(t, "exit\r", "logout")
	if _, _, events := s.recording(t); !strings.Contains(said(events, cast.Output), "in-2") {
		t.Error("it is not recorded once")
	}
}
