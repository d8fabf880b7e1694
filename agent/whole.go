package agent

import (
	"context"

	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// A role may demand that the record of its sessions is whole. Then nobody is
// let in where it does not work, and a gap ends the session or is an alert.

// unrecorded refuses a session whose role demands a record, while there is
// none that works.
func (a *Agent) unrecorded(ctx context.Context, s Session, why error) Answer {
	a.Log.ErrorContext(ctx, "session not opened: its role demands a record", "person", s.Person, "err", why)
	e := s.entry(ledger.Refused, s.Opened, "the role demands a record, and it does not work on this host: "+why.Error())
	e.Session = 0 // there is none
	a.append(e)
	return Answer{Message: "curfew: your role demands a record, and this host cannot keep one now: ask an administrator to run `curfew-agent status`"}
}

// untaped refuses a call of sudo on a terminal that nobody records, by a role
// that demands it: a login sees to its own terminal, and sudo comes on any.
func (a *Agent) untaped(ctx context.Context, s Session, role string) Answer {
	a.Log.InfoContext(ctx, "sudo refused: its role demands a terminal that is recorded", "person", s.Person, "tty", s.TTY)
	e := s.entry(ledger.Refused, s.Opened, "the role demands a terminal that is recorded, and this one is not")
	e.Session = 0 // there is none
	a.append(e)
	return Answer{Message: "curfew: role " + role + " demands a terminal that is recorded: use it in the one you logged in with, outside of tmux, screen and script"}
}

// tear looks among entries for gaps that roles do not put up with, says so in
// them, and has their sessions end. A gap of which nobody knows whose events it
// cost is one in every session's record.
func (a *Agent) tear(entries []ledger.Entry) {
	for i := range entries {
		e := &entries[i]
		if e.Kind != ledger.Gap {
			continue
		}
		worst := grant.AuditAsCan
		for _, s := range a.sessionsNow() {
			if e.Session == 0 || e.Session == s.ID {
				worst = max(worst, a.tearOne(s))
			}
		}
		switch worst {
		case grant.AuditEnd:
			e.Text += "; " + ledger.Demanded + ": what runs under it is ended"
			a.Wake()
		case grant.AuditAlert:
			e.Text += "; " + ledger.Demanded
		case grant.AuditAsCan:
		}
	}
}

// missed has those sessions end, of whose records something found no room, that
// belong to roles which do not put up with it, and says so. How much it is, the
// outbox tells once there is room.
func (a *Agent) missed(of []uint64) {
	for _, id := range of {
		gap := ledger.Entry{Kind: ledger.Gap, At: a.Clock.Now().Wall, Session: id, Text: noRoom}
		if s, ok := a.session(id); ok {
			gap.Grant, gap.Person, gap.Approvers = s.Grant, s.Person, s.Approvers
		}
		gaps := []ledger.Entry{gap}
		if a.tear(gaps); gaps[0].Text != noRoom {
			a.append(gaps...)
		}
	}
}

const noRoom = "the host has no room for all that is to be recorded"

func (a *Agent) tearOne(s Session) grant.Audit {
	g, ok := find(a.known(), s.Grant)
	if !ok {
		return grant.AuditAsCan
	}
	if g.Role.Audit == grant.AuditEnd {
		s.Torn = true
		if err := a.put(s); err != nil {
			a.Log.Error("that a session's record has a gap is not kept", "err", err)
		}
	}
	return g.Role.Audit
}
