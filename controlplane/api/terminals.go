package api

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/cast"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// Terminals keeps recordings.
type Terminals interface {
	Terminals(ctx context.Context, q roster.TerminalSearch) ([]roster.Terminal, error)
	Segments(ctx context.Context, host, id string, after uint64, limit int) ([]roster.Segment, error)
	// Get returns what a segment shows, by its digest.
	Get(digest []byte) ([]byte, error)
	// Watch has a session's segments come at once until stop is called.
	Watch(host string, session uint64) (stop func())
	EndHostSession(ctx context.Context, t roster.Terminal, a roster.Act, why string) error
	Tell(ctx context.Context, a roster.Act, format string, args ...any) error
}

const (
	maxTerminals  = 200
	someTerminals = 50
	segmentsPage  = 50
	maxLines      = 20       // that are shown of one recording
	maxLine       = 400      // bytes of one
	maxSearched   = 64 << 20 // bytes of recordings that one search looks through
)

// recorded says what of terminals a role has recorded.
func recorded(r grant.Role) string {
	what := "output"
	switch {
	case r.Unseen:
		return "none"
	case r.Typed:
		what = "output and input"
	}
	if r.Strict {
		what += ", required"
	}
	return what
}

// ListTerminals implements the API.
func (s *Server) ListTerminals(ctx context.Context, m *api.ListTerminalsRequest) (*api.ListTerminalsReply, error) {
	q, err := s.terminalSearch(ctx, m)
	if err != nil {
		return nil, err
	}
	found, err := s.Terminals.Terminals(ctx, q)
	if err != nil {
		return nil, err
	}
	reply := &api.ListTerminalsReply{More: len(found) == q.Limit}
	if m.Words != "" {
		if err := s.Terminals.Tell(ctx, s.act(ctx), "searched recordings of terminals for %q", m.Words); err != nil {
			return nil, err
		}
		return reply, s.lookThrough(ctx, found, m.Words, reply)
	}
	for _, t := range found {
		reply.Terminals = append(reply.Terminals, terminalMessage(t))
	}
	return reply, nil
}

// lookThrough adds those recordings that show a text.
func (s *Server) lookThrough(ctx context.Context, found []roster.Terminal, words string, reply *api.ListTerminalsReply) error {
	looked := uint64(0)
	for _, t := range found {
		if t.Deleted {
			continue
		}
		// One that is longer than all that is looked through at a time is
		// looked through whole: nothing hides behind a flood.
		if looked > 0 && looked+t.Bytes > maxSearched {
			reply.More, reply.Until = true, timestamppb.New(t.Started.Add(1))
			return nil
		}
		looked += t.Bytes
		lines, err := s.lines(ctx, t, words)
		if err != nil {
			return err
		}
		if len(lines) > 0 {
			one := terminalMessage(t)
			one.Lines = lines
			reply.Terminals = append(reply.Terminals, one)
		}
	}
	return nil
}

func (s *Server) terminalSearch(ctx context.Context, m *api.ListTerminalsRequest) (roster.TerminalSearch, error) {
	q := roster.TerminalSearch{Person: m.Person, Host: m.Host, Limit: someTerminals}
	if m.Limit > maxTerminals || len(m.Words) > maxLine {
		return q, roster.Refuse(roster.Invalid, "up to %d recordings, and a text of up to %d bytes", maxTerminals, maxLine)
	}
	if m.Limit > 0 {
		q.Limit = int(m.Limit)
	}
	if m.Since != nil {
		q.Since = m.Since.AsTime()
	}
	if m.Until != nil {
		q.Until = m.Until.AsTime()
	}
	if c := who(ctx); !c.Admin {
		q.For = c.Name
	}
	switch {
	case strings.HasPrefix(m.Id, "g-") || strings.HasPrefix(m.Id, "r-"):
		r, err := s.find(ctx, m.Id)
		if err != nil {
			return q, err
		}
		if r.Grant == nil {
			return q, roster.Refuse(roster.Missing, "no grant came of this request")
		}
		q.Grant = r.Grant.ID
	case m.Id != "":
		q.ID = m.Id
		if len(q.ID) < 16 {
			q.ID = strings.Repeat("0", 16-len(q.ID)) + q.ID
		}
	}
	return q, nil
}

func terminalMessage(t roster.Terminal) *api.Terminal {
	m := &api.Terminal{
		Id: t.ID, Host: t.Host, Session: t.Session, Grant: t.Grant, Person: t.Person, Role: t.Role, Started: timestamppb.New(t.Started),
		Seen: timestamppb.New(t.Seen), Why: t.Why, Segments: uint32(max(0, t.Segments)), Bytes: t.Bytes, Lost: t.Lost, Deleted: t.Deleted, //nolint:gosec // segments are few
	}
	if !t.Ended.IsZero() {
		m.Ended = timestamppb.New(t.Ended)
	}
	return m
}

// lines are those of a recording that show the text.
func (s *Server) lines(ctx context.Context, t roster.Terminal, text string) ([]*api.TerminalLine, error) {
	find := finder{text: roster.Letters(text)}
	var plain cast.Plain
	var last time.Duration
	err := s.segments(ctx, t, func(_ roster.Segment, data []byte) error {
		_, events, _ := cast.Read(bytes.NewReader(data)) // what is broken of it is not shown
		for _, e := range events {
			if last = e.At; e.Kind == cast.Output {
				find.look(e.At, plain.Text(e.Data))
			}
		}
		return nil
	})
	find.look(last, "\n")
	return find.found, err
}

// segments calls f for each segment of a recording.
func (s *Server) segments(ctx context.Context, t roster.Terminal, f func(v roster.Segment, data []byte) error) error {
	for after := uint64(0); ; {
		page, err := s.Terminals.Segments(ctx, t.Host, t.ID, after, segmentsPage)
		if err != nil {
			return err
		}
		for _, v := range page {
			if err := f(v, s.shown(ctx, t, v)); err != nil {
				return err
			}
			after = v.Number
		}
		if len(page) < segmentsPage {
			return nil
		}
	}
}

// shown is what a segment shows; nothing, if it is not there any more: whoever
// gets the statement sees that.
func (s *Server) shown(ctx context.Context, t roster.Terminal, v roster.Segment) []byte {
	if len(v.Digest) == 0 {
		return nil
	}
	data, err := s.Terminals.Get(v.Digest)
	if err != nil {
		s.Log.ErrorContext(ctx, "alert: a segment of a recording is gone", "host", t.Host, "recording", t.ID, "segment", v.Number, "cause", err)
	}
	return data
}

// terminal finds a recording that the caller may see.
func (s *Server) terminal(ctx context.Context, host, id string) (roster.Terminal, error) {
	q := roster.TerminalSearch{ID: id, Host: host, Limit: 1}
	if c := who(ctx); !c.Admin {
		q.For = c.Name
	}
	found, err := s.Terminals.Terminals(ctx, q)
	if err == nil && (len(found) == 0 || id == "" || host == "") {
		err = roster.Refuse(roster.Missing, "there is no such recording, or it is not yours to see: `curfew terminals` lists those that are")
	}
	if err != nil {
		return roster.Terminal{}, err
	}
	return found[0], nil
}

// ReplayTerminal implements the API.
func (s *Server) ReplayTerminal(ctx context.Context, m *api.ReplayTerminalRequest, stream *connect.ServerStream[api.TerminalPart]) error {
	return s.replay(ctx, m, func(v roster.Segment, data []byte) error {
		return stream.Send(&api.TerminalPart{Statement: v.Statement, HostKey: v.Key, Data: data})
	})
}

// Play passes on what a recording's segments hold, each once it is checked. It
// is ReplayTerminal for pages.
func (s *Server) Play(ctx context.Context, m *api.ReplayTerminalRequest, show func(ledger.Segment, []byte) error) error {
	thread := ledger.Thread{Host: m.Host, Terminal: m.Id}
	return s.replay(ctx, m, func(v roster.Segment, data []byte) error {
		checked, err := thread.Next(v.Statement, v.Key, data)
		if err != nil {
			return roster.Refuse(roster.Conflict, "ALERT: the recording is not what its host signed: %v", err)
		}
		return show(checked, data)
	})
}

func (s *Server) replay(ctx context.Context, m *api.ReplayTerminalRequest, send func(roster.Segment, []byte) error) error {
	t, err := s.terminal(ctx, m.Host, m.Id)
	if err != nil {
		return err
	}
	if t.Deleted {
		return roster.Refuse(roster.Missing, "what this terminal showed was deleted, as the retention of its role says; what its host signed of it is in the record")
	}
	verb := "replayed"
	if m.Follow && t.Ended.IsZero() {
		verb = "watches"
		defer s.Terminals.Watch(t.Host, t.Session)()
	}
	if err := s.Terminals.Tell(ctx, s.act(ctx), "%s terminal %s of %s on %s under %s", verb, t.ID, t.Person, t.Host, t.Grant); err != nil {
		return err
	}
	after := uint64(0)
	return s.Follow(ctx, func() (over bool, err error) {
		after, over, err = s.sendSegments(ctx, t, after, send)
		return over || !m.Follow, err
	})
}

// sendSegments sends all that there is of the recording after the one with the
// number. It returns which came last, and whether that ends it.
func (s *Server) sendSegments(ctx context.Context, t roster.Terminal, after uint64, send func(roster.Segment, []byte) error) (last uint64, ended bool, err error) {
	for {
		page, err := s.Terminals.Segments(ctx, t.Host, t.ID, after, segmentsPage)
		if err != nil {
			return after, ended, err
		}
		for _, v := range page {
			if err := send(v, s.shown(ctx, t, v)); err != nil {
				return after, ended, err
			}
			after, ended = v.Number, len(v.Digest) == 0
		}
		if len(page) < segmentsPage {
			return after, ended, nil
		}
	}
}

// EndHostSession implements the API.
func (s *Server) EndHostSession(ctx context.Context, m *api.EndHostSessionRequest) (*api.EndHostSessionReply, error) {
	if err := grant.CheckText("note", m.Why, maxNote); err != nil {
		return nil, invalid(err)
	}
	t, err := s.terminal(ctx, m.Host, m.Id)
	if err != nil {
		return nil, err
	}
	if !t.Ended.IsZero() {
		return nil, roster.Refuse(roster.Conflict, "this terminal has ended already")
	}
	if err := s.Terminals.EndHostSession(ctx, t, s.act(ctx), m.Why); err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "session ended by who watched it", "host", t.Host, "session", fmt.Sprintf("%x", t.Session), "by", who(ctx).Name)
	return &api.EndHostSessionReply{}, nil
}
