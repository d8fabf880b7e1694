package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/keep"
	"curfew.internal/agent/record"
	"curfew.internal/agent/uplink"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/terminal"
)

// sudoOn is a call of sudo by ana on a terminal.
func sudoOn(tty string) Knock {
	return Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", TTY: tty, PID: 8}
}

func TestSudoByARoleThatDemandsRecordedTerminals(t *testing.T) {
	for _, c := range []struct {
		name   string
		strict bool
		knock  Knock
		allow  bool
	}{
		{"on the terminal that is recorded", true, sudoOn("/dev/pts/3"), true},
		{"on another, such as one of tmux", true, sudoOn("/dev/pts/4"), false},
		{"without a terminal", true, sudoOn(""), false},
		{"of a role that demands nothing", false, sudoOn("/dev/pts/4"), true},
		{"a login, whose shell has its terminal recorded", true, Knock{Open: true, Service: "sshd", User: "ana", TTY: "ssh", PID: 8}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			g := held("g-a", "ana", 0, time.Hour)
			g.Role.Strict = c.strict
			w.offered.Grants = []grant.Grant{g}
			a := w.agent(t)
			a.Taped = func(person, tty string) bool { return person == "ana" && tty == "/dev/pts/3" }
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			got := a.Knock(t.Context(), c.knock)
			if got.Allow != c.allow || (w.tasks[8] != 0) != c.allow || got.Allow != (got.Message == "") {
				t.Errorf("%+v, task %x", got, w.tasks[8])
			}
			if told := w.told(ledger.Refused); (len(told) == 0) != c.allow {
				t.Errorf("%+v", told)
			}
		})
	}
}

func TestWhatTheRecorderIsToldOfALogin(t *testing.T) {
	for _, c := range []struct {
		name     string
		role     grant.Role
		tty      bool
		noRoom   bool
		stranger bool
		want     terminal.Answer // but for what is always the same
		refused  string
		told     string
	}{
		{name: "a terminal", tty: true},
		{name: "a terminal whose input is recorded", role: grant.Role{Typed: true}, tty: true, want: terminal.Answer{Typed: true}},
		{name: "no terminal", told: "what goes in and out of it is not recorded"},
		{name: "no terminal, and the role demands one", role: grant.Role{Strict: true}, want: terminal.Answer{Strict: true}, refused: "ssh -t", told: "refused: a session without a terminal"},
		{name: "a role whose terminals are not recorded", role: grant.Role{Unseen: true}, tty: true, want: terminal.Answer{Unseen: true}, told: "the role says"},
		{name: "no room on the disk", tty: true, noRoom: true, want: terminal.Answer{Unseen: true}, told: "no room"},
		{
			name: "no room, and the role demands it", role: grant.Role{Strict: true}, tty: true, noRoom: true,
			want: terminal.Answer{Strict: true, Unseen: true}, refused: "no room", told: "refused: there is no room",
		},
		{name: "a process without a label", tty: true, stranger: true, refused: "under no grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			g := held("g-a", "ana", 0, time.Hour)
			g.Role.Typed, g.Role.Strict, g.Role.Unseen = c.role.Typed, c.role.Strict, c.role.Unseen
			w.offered.Grants = []grant.Grant{g}
			a := w.agent(t)
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
				t.Fatalf("%+v", got)
			}
			dir := t.TempDir()
			if c.noRoom {
				dir = filepath.Join(dir, "none")
			}
			desk := a.desk(&Terminals{Spool: record.Spool{Dir: dir}, Quota: 5})
			q := terminal.Question{PID: 7, Terminal: c.tty}
			if c.stranger {
				q.PID = 9
			}
			got := desk(t.Context(), q)
			want := c.want
			if !c.stranger {
				want.Session, want.Grant, want.Person, want.Role, want.Boot, want.Quota = w.tasks[7], "g-a", "ana", "ops", "b", 5
			}
			if !strings.Contains(got.Refused, c.refused) || (got.Refused == "") != (c.refused == "") {
				t.Errorf("refused %q", got.Refused)
			}
			if got.Refused = ""; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			desk(t.Context(), q) // who asks again is not told of again
			told := w.told(ledger.Terminal)
			if (len(told) == 1) != (c.told != "") || len(told) > 1 || len(told) == 1 && !strings.Contains(told[0].Text, c.told) {
				t.Errorf("%+v", told)
			}
		})
	}
}

// recording makes a folder of a recording whose recorder is gone.
func recording(t *testing.T, spool string, i record.Info, end string) {
	t.Helper()
	dir := filepath.Join(spool, i.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"info.json":   `{"id":"` + i.ID + `","session":` + strconv.FormatUint(i.Session, 10) + `,"grant":"` + i.Grant + `","person":"` + i.Person + `","started":"2027-01-31T12:00:00Z"}`,
		"000001.cast": `{"version":2,"width":80,"height":24,"timestamp":1}` + "\n" + `[0.5, "o", "x"]` + "\n", "end.json": end,
	} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheEndOfARecording(t *testing.T) {
	for _, c := range []struct {
		name, end string
		lives     bool
		says      string
	}{
		{"the shell ended: what she left running goes on", `{"at":"2027-01-31T12:00:01Z","why":"the shell ended"}`, true, ""},
		{"its recorder was ended", "", false, "the recorder of its terminal was ended"},
		{"it could not be recorded any more", `{"at":"2027-01-31T12:00:01Z","why":"it could not be recorded any more","cut":true}`, false, "which its role demands"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
			a := w.agent(t)
			if _, err := a.Pass(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if got := a.Knock(t.Context(), Knock{Open: true, Service: "sshd", User: "ana", PID: 7}); !got.Allow {
				t.Fatalf("%+v", got)
			}
			spool := t.TempDir()
			recording(t, spool, record.Info{ID: "x-1", Session: w.tasks[7], Grant: "g-a", Person: "ana"}, c.end)
			sent := 0
			terms := &Terminals{Spool: record.Spool{Dir: spool}, Send: func(context.Context, []byte, []byte) error { sent++; return nil }}
			if err := a.takeTerminals(t.Context(), terms); err != nil {
				t.Fatal(err)
			}
			if (w.tasks[7] != 0) != c.lives || sent != 2 || len(w.told(ledger.Terminal)) != 2 {
				t.Errorf("task %x, %d sent, %+v", w.tasks[7], sent, w.told(ledger.Terminal))
			}
			if ended := w.told(ledger.Logout); (len(ended) == 0) != c.lives || len(ended) > 0 && !strings.Contains(ended[0].Text, c.says) {
				t.Errorf("%+v", ended)
			}
			if left, err := os.ReadDir(spool); err != nil || len(left) != 0 {
				t.Errorf("%v %v", left, err)
			}
		})
	}
}

// A recording that the control plane does not take holds up no other.
func TestARefusedRecordingHoldsUpNoOther(t *testing.T) {
	w := newWorld()
	a := w.agent(t)
	spool := t.TempDir()
	recording(t, spool, record.Info{ID: "x-1", Session: 1, Grant: "g-strange", Person: "ana"}, "")
	recording(t, spool, record.Info{ID: "x-2", Session: 2, Grant: "g-a", Person: "ben"}, "")
	// The first one goes on.
	alive, err := os.Create(filepath.Join(spool, "x-1", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alive.Close() }()
	if err := unix.Flock(int(alive.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	tried, taken := 0, 0
	terms := &Terminals{Spool: record.Spool{Dir: spool}, refused: map[string]time.Duration{}, Send: func(_ context.Context, statement, _ []byte) error {
		s, err := ledger.OpenSegment(statement, a.ReceiptKey.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
		if s.Grant == "g-strange" {
			tried++
			return fmt.Errorf("%w: no room at the control plane", uplink.ErrRefused)
		}
		taken++
		return nil
	}}
	for range 3 {
		if err := a.takeTerminals(t.Context(), terms); err != nil && !strings.Contains(err.Error(), "refuses it") {
			t.Fatal(err)
		}
	}
	if tried != 1 || taken != 2 {
		t.Errorf("tried %d times, %d of the other taken", tried, taken)
	}
	w.now = w.now.Add(refusedAgain)
	if err := a.takeTerminals(t.Context(), terms); err == nil || tried != 2 {
		t.Errorf("tried %d times: %v", tried, err)
	}
	if told := w.told(ledger.Gap); len(told) > 0 {
		t.Errorf("it may be taken yet: %+v", told)
	}
	if err := errors.Join(alive.Close(), os.Remove(filepath.Join(spool, "x-1", "lock"))); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(refusedAgain)
	if err := a.takeTerminals(t.Context(), terms); err != nil {
		t.Fatal(err)
	}
	told := w.told(ledger.Gap)
	if len(told) != 1 || told[0].Grant != "g-strange" || told[0].Text != "terminal x-1 from segment 1 on: the control plane refuses it: no room at the control plane" {
		t.Errorf("%+v", told)
	}
}

// A crowded keep has no room for what waits on the disk anyway.
type crowded struct {
	Keep
	err error
}

func (c *crowded) Offer(e ledger.Entry) error {
	if c.err != nil {
		return c.err
	}
	return c.Keep.Offer(e)
}

// A record that has no room for a segment's statement gets it later, and then
// the next: none of a recording is left out.
func TestASegmentWaitsForRoomInTheRecord(t *testing.T) {
	w := newWorld()
	a := w.agent(t)
	no := &crowded{Keep: a.Keep, err: keep.ErrFull}
	a.Keep = no
	spool := t.TempDir()
	recording(t, spool, record.Info{ID: "x-1", Session: 1, Grant: "g-a", Person: "ana"}, `{"at":"2027-01-31T12:00:01Z","why":"the shell ended"}`)
	var sent [][]byte
	terms := &Terminals{Spool: record.Spool{Dir: spool}, Send: func(_ context.Context, statement, _ []byte) error {
		sent = append(sent, statement)
		return nil
	}}
	for range 3 {
		if err := a.takeTerminals(t.Context(), terms); !errors.Is(err, keep.ErrFull) {
			t.Fatal(err)
		}
	}
	if told := w.told(ledger.Terminal); len(told)+len(sent) > 0 {
		t.Fatalf("%+v, %d sent", told, len(sent))
	}
	no.err = nil
	if err := a.takeTerminals(t.Context(), terms); err != nil {
		t.Fatal(err)
	}
	told := w.told(ledger.Terminal)
	if len(told) != 2 || len(sent) != 2 || !bytes.Equal(told[0].Receipt, sent[0]) || !bytes.Equal(told[1].Receipt, sent[1]) {
		t.Errorf("%+v, %d sent", told, len(sent))
	}
}
