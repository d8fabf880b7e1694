package agent

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// The kinds of sessions.
const (
	LoginSession = "login"
	SudoSession  = "sudo"
)

// remembered is how many ended sessions are kept so that their last events
// still find whom they belong to.
const remembered = 1000

// A Session is a labelled tree of processes and the grant it acts under. It
// is kept in /run, so that an agent that restarts knows its labels, and a
// host that reboots, where no label survives, has none.
type Session struct {
	ID        uint64    `json:"id"`
	Grant     string    `json:"grant"`
	Person    string    `json:"person"`
	Approvers []string  `json:"approvers"`
	Kind      string    `json:"kind"`
	Service   string    `json:"service"`
	TTY       string    `json:"tty,omitempty"`
	From      string    `json:"from,omitempty"`
	PID       int       `json:"pid"`
	Opened    time.Time `json:"opened"`
	// Begun is the same since boot: the wall clock may be set. Zero, in one that
	// an agent of before kept: long ago.
	Begun time.Duration `json:"begun,omitempty"`
	Past  []string      `json:"past,omitempty"` // grants of its role that a sudo call was under before, as that it came by
	Torn  bool          `json:"torn,omitempty"` // its record has a gap, and its role demands a whole one
}

func (s Session) entry(k ledger.Kind, at time.Time, text string) ledger.Entry {
	return ledger.Entry{
		Kind: k, At: at, Grant: s.Grant, Person: s.Person, Approvers: s.Approvers, Session: s.ID, Service: s.Service, Text: text,
		Process: &ledger.Process{PID: uint32(max(0, s.PID)), TTY: s.TTY}, //nolint:gosec // a pid fits
	}
}

func newSession(g grant.Grant) Session {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails, crypto/rand
	return Session{ID: binary.LittleEndian.Uint64(b[:]) | 1, Grant: g.ID, Person: g.Person.Name, Approvers: approvers(g)}
}

func (a *Agent) sessionsNow() []Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.sessions), func(x, y Session) int { return x.Opened.Compare(y.Opened) })
}

// put keeps a session, on disk first.
func (a *Agent) put(s Session) error {
	if err := a.Keep.SaveSession(s); err != nil {
		return fmt.Errorf("keep session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[s.ID] = s
	return nil
}

// drop forgets sessions that have no process left.
func (a *Agent) drop(sessions ...Session) error {
	if len(sessions) == 0 {
		return nil
	}
	a.mu.Lock()
	if len(a.ended)+len(sessions) > remembered {
		clear(a.ended)
	}
	for _, s := range sessions {
		delete(a.sessions, s.ID)
		delete(a.said, saidOf(s.ID))
		a.ended[s.ID] = s
	}
	a.mu.Unlock()
	var errs []error
	for _, s := range sessions {
		if err := a.Keep.DropSession(s.ID); err != nil {
			errs = append(errs, fmt.Errorf("forget session: %w", err))
		}
	}
	return errors.Join(append(errs, a.Labels.Forget(numbers(sessions)))...)
}

// reap forgets the sessions in which nothing runs any more.
func (a *Agent) reap(ctx context.Context) {
	sessions := a.sessionsNow()
	if len(sessions) == 0 {
		return
	}
	living, err := a.Labels.Living()
	if err != nil {
		a.Log.WarnContext(ctx, "sessions not looked at", "err", err)
		return
	}
	dead := slices.DeleteFunc(sessions, func(s Session) bool { return len(living[s.ID]) > 0 || a.young(s) })
	if err := a.drop(dead...); err != nil {
		a.Log.WarnContext(ctx, "sessions not forgotten", "err", err)
	}
}

// young reports whether a session may not have been labelled yet.
func (a *Agent) young(s Session) bool { return a.Clock.Now().Boot-s.Begun < time.Second }

// session finds a session, also one that ended of late.
func (a *Agent) session(id uint64) (Session, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s, ok := a.sessions[id]; ok {
		return s, true
	}
	s, ok := a.ended[id]
	return s, ok
}

func (a *Agent) count(s Session, killed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.killed[s.Grant] += uint64(max(0, killed))
}

func (a *Agent) killedOf(grant string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.killed[grant]
}

// deadline is when what runs under the grant has to be over, on the boot-time
// clock: by its end, or by its lease, which each pass pushes out for as long as
// the control plane is heard.
func (a *Agent) deadline(g grant.Grant) uint64 { return a.dueBy(g, g.Drained()) }

// dueBy is the end, or the lease of the grant if that is sooner, on the boot-time
// clock.
func (a *Agent) dueBy(g grant.Grant, end time.Time) uint64 {
	r := a.Clock.Now()
	if g.Lease > 0 {
		end = sooner(end, sooner(a.Heard(), a.Keep.Trusted(r)).Add(g.Lease)) // a sign of life that is yet to come is none
	}
	left := end.Sub(a.Keep.Trusted(r))
	return uint64(max(1, (r.Boot + left).Nanoseconds()))
}

// deadlineOf is the deadline of a session under the grant. A login goes on under
// any grant of its person's that stands: the kernel is not to end it by the
// lease of one before the loop has moved it to another. Those hold it until they
// end; their drain is for what runs under them.
func (a *Agent) deadlineOf(s Session, g grant.Grant, live []grant.Grant) uint64 {
	end := a.deadline(g)
	for _, l := range live {
		if s.Kind == LoginSession && l.Person.Name == s.Person {
			end = max(end, a.dueBy(l, l.NotAfter))
		}
	}
	return end
}

// Record fills in what the kernel does not know of its events, and appends
// them to the record.
func (a *Agent) Record(_ context.Context, entries []ledger.Entry) error {
	for i := range entries {
		e := &entries[i]
		if s, ok := a.session(e.Session); ok {
			e.Grant, e.Person, e.Approvers, e.Service = s.Grant, s.Person, s.Approvers, s.Service
		}
		e.Object, e.Text = valid(e.Object), printable(outside(*e))
		if p := e.Process; p != nil {
			p.Comm, p.Path, p.Cwd, p.TTY, p.Script = valid(p.Comm), valid(p.Path), valid(p.Cwd), valid(p.TTY), valid(p.Script)
			for _, words := range [][]string{p.Argv, p.Env} {
				for j := range words {
					words[j] = valid(words[j])
				}
			}
		}
	}
	a.tear(entries)
	a.loosen(entries)
	// What the outbox could not write it holds in memory or counts as a gap:
	// offering it again would only tell it twice.
	a.append(entries...)
	return nil
}

// valid spells bytes that are not UTF-8 as \xNN, so that nothing is lost.
func valid(s string) string {
	if strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(unicode.ReplacementChar)) {
			fmt.Fprintf(&b, `\x%02x`, s[i])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printable is text for one line of a record.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, valid(s))
}
