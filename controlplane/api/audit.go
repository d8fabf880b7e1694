package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

const (
	maxWords   = 20
	maxEvents  = 1000
	someEvents = 100
)

func (s *Server) search(ctx context.Context, m *api.SearchEventsRequest) (roster.Search, error) {
	q := roster.Search{
		Grant: m.Grant, Person: m.Person, Host: m.Host, Kind: m.Kind, Words: strings.Fields(m.Words), After: m.After, Limit: someEvents,
		Role: m.Role, Outcome: m.Outcome, Path: m.Path,
	}
	if len(q.Words) > maxWords || m.Limit > maxEvents {
		return q, roster.Refuse(roster.Invalid, "up to %d words, and up to %d events a page", maxWords, maxEvents)
	}
	for _, word := range q.Words {
		if !strings.ContainsFunc(word, lettered) {
			return q, roster.Refuse(roster.Invalid, "%q has no letter and no digit, by which words are found: leave it out", word)
		}
	}
	if m.Kind != "" && m.Kind != roster.Malformed && ledger.KindNamed(m.Kind) == 0 {
		return q, roster.Refuse(roster.Invalid, "no such kind of event: %q", m.Kind)
	}
	if m.Outcome != "" && !slices.Contains(roster.Outcomes, m.Outcome) {
		return q, roster.Refuse(roster.Invalid, "an outcome is one of %s", strings.Join(roster.Outcomes, ", "))
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
	return q, nil
}

// lettered reports whether a word is found by the rune. One without any stands
// nowhere, and whoever pastes a command line with a / or a | of its own is not
// to read that nobody typed it.
func lettered(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }

// SearchEvents implements the API.
func (s *Server) SearchEvents(ctx context.Context, m *api.SearchEventsRequest) (*api.SearchEventsReply, error) {
	q, err := s.search(ctx, m)
	if err != nil {
		return nil, err
	}
	events, err := s.Store.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	reply := &api.SearchEventsReply{}
	for _, e := range events {
		reply.Events = append(reply.Events, eventMessage(e))
	}
	if q.After == 0 {
		told, err := s.gaps(ctx, q)
		if err != nil {
			return nil, err
		}
		reply.Gaps, reply.Lost = told.sum()
	}
	if roster.More(events, q.Limit) {
		reply.Next = events[len(events)-1].ID
	}
	return reply, nil
}

// TailEvents implements the API. Without a place to begin at, it begins now.
func (s *Server) TailEvents(ctx context.Context, m *api.SearchEventsRequest, stream *connect.ServerStream[api.Event]) error {
	q, err := s.search(ctx, m)
	if err != nil {
		return err
	}
	q.Limit = maxEvents
	if q.After == 0 && q.Since.IsZero() {
		if q.After, err = s.Store.LastEvent(ctx); err != nil {
			return err
		}
	}
	stream.ResponseHeader().Set(api.After, strconv.FormatUint(q.After, 10))
	// Headers first: the caller knows then that what comes is not missed.
	if err := stream.Send(nil); err != nil {
		return err
	}
	return s.Follow(ctx, func() (bool, error) {
		q.After, err = s.sendEvents(ctx, q, stream.Send)
		return false, err
	})
}

// sendEvents sends all that there is, and returns which came last.
func (s *Server) sendEvents(ctx context.Context, q roster.Search, send func(*api.Event) error) (last uint64, err error) {
	for {
		events, err := s.Store.Events(ctx, q)
		if err != nil {
			return q.After, err
		}
		for _, e := range events {
			if err := send(eventMessage(e)); err != nil {
				return q.After, err
			}
			q.After = e.ID
		}
		if !roster.More(events, q.Limit) {
			return q.After, nil
		}
	}
}

// Timeline implements the API.
func (s *Server) Timeline(ctx context.Context, m *api.TimelineRequest) (*api.TimelineReply, error) {
	r, err := s.find(ctx, m.Grant)
	if err != nil {
		return nil, err
	}
	steps, err := s.Store.Decisions(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	reply := &api.TimelineReply{}
	if reply.Request, err = s.message(ctx, r, nil); err != nil {
		return nil, err
	}
	if err := s.tellGaps(ctx, r, reply.Request); err != nil {
		return nil, err
	}
	for _, d := range steps {
		reply.Moments = append(reply.Moments, &api.Moment{At: timestamppb.New(d.At), What: d.What, Host: d.Host, Person: d.Person, Text: d.Text})
	}
	if r.Grant == nil {
		return reply, nil
	}
	if err := s.tellHosts(ctx, r, reply); err != nil {
		return nil, err
	}
	slices.SortStableFunc(reply.Moments, func(a, b *api.Moment) int { return a.At.AsTime().Compare(b.At.AsTime()) })
	return reply, nil
}

// tellHosts adds what the hosts say of the grant.
func (s *Server) tellHosts(ctx context.Context, r roster.Request, reply *api.TimelineReply) error {
	sent, err := s.Store.SentTo(ctx, r.ID)
	if err != nil {
		return err
	}
	for _, d := range sent {
		reply.Moments = append(reply.Moments, &api.Moment{
			At: timestamppb.New(d.At), What: "sent", Host: d.Host, Text: "the host holds the grant", Took: since(r.IssuedAt, d.At),
		})
	}
	var deeds, size int
	left := &api.Moment{What: "left-out"}
	for q := (roster.Search{Grant: r.Grant.ID, Limit: maxEvents}); ; {
		events, err := s.Store.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range events {
			q.After = e.ID
			switch {
			case e.Entry.Kind == ledger.Decision: // told as a step already
				continue
			case e.Entry.Process != nil && e.Entry.SessionSeq > 0:
				if deeds, size = deeds+1, size+e.Size; deeds > mostDeeds || size > deedBytes {
					left.At = timestamppb.New(e.Entry.At)
					continue
				}
			}
			reply.Moments = append(reply.Moments, moment(r, e))
		}
		if !roster.More(events, q.Limit) {
			break
		}
	}
	if left.At != nil {
		left.Text = fmt.Sprintf("not all of the %d things that were done under it are told here: curfew audit search --grant %s --limit 0", deeds, r.Grant.ID)
		reply.Moments = append(reply.Moments, left)
	}
	return nil
}

// A grant's story tells so much of what was done under it: a page has an end,
// and the record has all.
const (
	mostDeeds = 20_000
	deedBytes = 16 << 20
)

func moment(r roster.Request, e roster.Event) *api.Moment {
	m := &api.Moment{
		At: timestamppb.New(e.Entry.At), What: e.Kind, Host: e.Host, Person: e.Entry.Person, Text: e.Entry.Text, Event: eventMessage(e),
	}
	switch e.Entry.Kind {
	case ledger.Installed:
		m.Took = since(r.IssuedAt, e.Entry.At)
	case ledger.Removed:
		if receipt, ok := openReceipt(e); ok {
			m.Took = since(receipt.EndedAt, receipt.DoneAt)
		}
	case ledger.Leftovers:
		if e.Entry.Took > 0 {
			m.Took = durationpb.New(e.Entry.Took)
		}
	case ledger.Exec, ledger.Exit, ledger.SetID:
		if p := e.Entry.Process; p != nil && m.Text == "" {
			m.Text = strings.Join(p.Argv, " ")
		}
	case ledger.Login, ledger.Logout, ledger.Refused, ledger.Gap, ledger.SetRefused, ledger.Drift, ledger.Agent, ledger.Admin, ledger.Decision,
		ledger.Connect, ledger.Open, ledger.Act, ledger.Privilege, ledger.WouldRefuse, ledger.Terminal, ledger.Sealed, ledger.SignIn, ledger.Witnessed, ledger.Named:
	}
	return m
}

func since(from, to time.Time) *durationpb.Duration {
	if from.IsZero() || to.Before(from) {
		return nil
	}
	return durationpb.New(to.Sub(from))
}

// openReceipt returns the receipt that an event carries, if the host's key
// signed it and it is about that host and grant.
func openReceipt(e roster.Event) (ledger.Receipt, bool) {
	r, err := ledger.OpenReceipt(e.Entry.Receipt, e.ReceiptKey)
	return r, err == nil && e.ReceiptOK
}
